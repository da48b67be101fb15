/* The layers of docs/architecture.md: includes point down only, and one dependency has one room. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* Lowest first. A layer may include itself, what is below it, and the public headers. */
static const struct {
    const char *folder;
    int height;
} layers[] = {
    {"base", 0}, {"graph", 1}, {"exec", 2},  {"solve", 3},   {"nn", 3},
    {"data", 3}, {"train", 4}, {"tasks", 5}, {"methods", 6}, {"study", 7},
};

static const struct {
    const char *include, *room; /* may only be included below src/room */
} rooms[] = {
    {"dnnl", "exec/cpu"},   {"omp.h", "exec/cpu"},    {"lapack", "exec/cpu"}, {"sqlite3", "study"},
    {"cblas", "exec/cpu"},    {"mpi.h", "study/cluster.c"},
    {"png.h", "data/read"}, {"jpeglib", "data/read"}, {"csv.h", "data/read"},
};

static int failures;

static int height_of(const char *path)
{
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        size_t n = strlen(layers[i].folder);
        if (!strncmp(path, layers[i].folder, n) && path[n] == '/')
            return layers[i].height;
    }
    return -1;
}

static void check_line(const char *file, int number, const char *line)
{
    char target[256];
    if (sscanf(line, "#include \"%255[^\"]\"", target) == 1) {
        int from = height_of(file), to = height_of(target);
        const char *slash = strchr(file, '/');
        int same = slash && !strncmp(file, target, (size_t)(slash - file + 1));
        if (to > from || (to == from && to >= 0 && !same)) {
            print_error("src/%s:%d includes \"%s\", which is not below it\n", file, number, target);
            failures++;
        }
    }
    if (sscanf(line, "#include <%255[^>]>", target) != 1)
        return;
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        if (strstr(target, rooms[i].include) &&
            strncmp(file, rooms[i].room, strlen(rooms[i].room)) != 0) {
            print_error("src/%s:%d includes <%s>, which only src/%s may\n", file, number, target,
                        rooms[i].room);
            failures++;
        }
}

static int files;

static void check_file(const char *path, const char *relative)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char line[1024];
    files++;
    for (int number = 1; fgets(line, sizeof line, f); number++)
        check_line(relative, number, line);
    fclose(f);
}

static void walk(const char *root, const char *relative)
{
    char path[1024], next[512];
    snprintf(path, sizeof path, "%s/%s", root, relative);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *name = entry->d_name;
        if (name[0] == '.')
            continue;
        snprintf(next, sizeof next, "%s%s%s", relative, *relative ? "/" : "", name);
        snprintf(path, sizeof path, "%s/%s", root, next);
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        size_t n = strlen(name);
        if (S_ISDIR(info.st_mode))
            walk(root, next);
        else if (n > 2 && name[n - 2] == '.' && (name[n - 1] == 'c' || name[n - 1] == 'h'))
            check_file(path, next);
    }
    closedir(folder);
}

static void includes_point_down_only(void **state)
{
    (void)state;
    walk(BALLAST_SOURCE_DIR "/src", "");
    assert_true(files > 10);
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(includes_point_down_only)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
