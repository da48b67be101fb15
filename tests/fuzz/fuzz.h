/* Fuzzers of everything that reads bytes from outside, for clang's libFuzzer with sanitizers:
 *
 *     CC=clang cmake -B build-fuzz -DBALLAST_FUZZ=ON -DBALLAST_SANITIZE=address,undefined
 *     cmake --build build-fuzz && build-fuzz/fuzz_csv -max_total_time=60
 *
 * Give it a folder of examples first (build-fuzz/fuzz_csv DIR); those in seeds/NAME are where run.sh
 * starts. A new one is a file fuzz_NAME.c here with one function, fuzz(bytes, count). Nothing that
 * the bytes say may crash, leak or be read out of bounds; a refusal must say why. */
#ifndef BL_FUZZ_H
#define BL_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/dataset.h"

static void fuzz(const char *bytes, size_t count);

/* A refusal without a sentence is a bug, and so is one that does not name the file. */
static inline void check(bl_status status)
{
    if (status != BL_OK && status != BL_NO_MEMORY && !strstr(bl_error(), "case"))
        abort();
}

/* The same of what has no file. */
static inline void check_sentence(bl_status status)
{
    if (status != BL_OK && !*bl_error())
        abort();
}

/* The bytes as a text, up to a first 0; bl_release it. */
static inline char *text_of(const char *bytes, size_t count)
{
    char *text = bl_format("%.*s", (int)count, bytes);
    if (!text)
        abort();
    return text;
}

static char file_path[64];

static inline void remove_file(void)
{
    unlink(file_path);
}

/* The bytes as a file, for what reads by name: the same one each time, in memory where there is a
 * file system for it. */
static inline const char *file_of(const char *bytes, size_t count)
{
    if (!*file_path) {
        snprintf(file_path, sizeof file_path, "%s/ballast-fuzz-%d-case",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
        atexit(remove_file);
    }
    FILE *file = fopen(file_path, "wb");
    if (!file || fwrite(bytes, 1, count, file) != count || fclose(file) != 0)
        abort();
    return file_path;
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t count);
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t count)
{
    fuzz((const char *)bytes, count);
    return 0;
}

#endif
