/* Whole files in and out. A file is written under a temporary name beside its place, synced and
 * renamed, so that whoever looks finds the old file or the new one, never half of either. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bl_status failed(const char *doing, const char *path)
{
    int reason = errno;
    bl_status code = reason == ENOENT || reason == ENOTDIR ? BL_NOT_FOUND : BL_IO;
    return bl_fail(code, "%s: cannot %s: %s", path, doing, strerror(reason));
}

static bl_status read_all(int descriptor, const char *path, char **bytes, size_t *count)
{
    struct stat about;
    if (fstat(descriptor, &about) != 0)
        return failed("read", path);
    size_t capacity =
        S_ISREG(about.st_mode) && about.st_size > 0 ? (size_t)about.st_size + 2 : 4096;
    size_t used = 0;
    char *buffer = bl_alloc(capacity);
    if (!buffer)
        return bl_no_memory(capacity);
    for (;;) {
        if (used + 1 >= capacity) {
            char *larger = capacity > SIZE_MAX / 2 ? NULL : bl_resize(buffer, capacity * 2);
            if (!larger) {
                bl_release(buffer);
                return bl_no_memory(capacity);
            }
            buffer = larger;
            capacity *= 2;
        }
        ssize_t got = read(descriptor, buffer + used, capacity - used - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            bl_status status = failed("read", path);
            bl_release(buffer);
            return status;
        }
        if (got == 0)
            break;
        used += (size_t)got;
    }
    buffer[used] = '\0';
    *bytes = buffer;
    *count = used;
    return BL_OK;
}

bl_status bl_read_file(const char *path, char **bytes, size_t *count)
{
    *bytes = NULL;
    *count = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return failed("open", path);
    bl_status status = read_all(descriptor, path, bytes, count);
    close(descriptor);
    return status;
}

static bool write_pieces(int descriptor, const bl_piece *piece, size_t pieces)
{
    for (size_t i = 0; i < pieces; i++) {
        const char *at = piece[i].bytes;
        size_t left = piece[i].count;
        while (left > 0) {
            ssize_t put = write(descriptor, at, left);
            if (put < 0 && errno == EINTR)
                continue;
            if (put < 0)
                return false;
            at += put;
            left -= (size_t)put;
        }
    }
    return true;
}

/* A device or a pipe (/dev/stdout) is written to, not replaced. */
static bl_status write_in_place(const char *path, const bl_piece *piece, size_t pieces)
{
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0)
        return failed("write", path);
    bl_status status = write_pieces(descriptor, piece, pieces) ? BL_OK : failed("write", path);
    close(descriptor);
    return status;
}

static int open_temporary(const char *path, char **name)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        *name = bl_format("%s.%ld-%d.partial", path, (long)getpid(), attempt);
        if (!*name) {
            errno = ENOMEM;
            return -1;
        }
        int descriptor = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST)
            return descriptor;
        bl_release(*name);
        *name = NULL;
    }
    return -1;
}

/* A rename survives a power failure once the directory is synced; a file system that cannot sync
 * directories has nothing more to offer, so that failure is not reported. */
static void sync_directory_of(const char *path)
{
    char *directory = bl_copy_text(path);
    if (!directory)
        return;
    char *slash = strrchr(directory, '/');
    if (slash)
        slash[slash == directory] = '\0';
    int descriptor = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
        fsync(descriptor);
        close(descriptor);
    }
    bl_release(directory);
}

bl_status bl_write_pieces(const char *path, const bl_piece *piece, size_t pieces)
{
    struct stat about;
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode))
        return write_in_place(path, piece, pieces);
    char *temporary = NULL;
    int descriptor = open_temporary(path, &temporary);
    if (descriptor < 0) {
        bl_status status = failed("write", path);
        bl_release(temporary);
        return status;
    }
    bl_status status = BL_OK;
    if (!write_pieces(descriptor, piece, pieces) || fsync(descriptor) != 0)
        status = failed("write", path);
    if (close(descriptor) != 0 && status == BL_OK)
        status = failed("write", path);
    if (status == BL_OK && rename(temporary, path) != 0)
        status = failed("write", path);
    if (status == BL_OK)
        sync_directory_of(path);
    else
        unlink(temporary);
    bl_release(temporary);
    return status;
}

bl_status bl_write_file(const char *path, const void *bytes, size_t count)
{
    return bl_write_pieces(path, &(bl_piece){bytes, count}, 1);
}
