/* Fuzzers of everything that reads bytes from outside, for clang's libFuzzer with sanitizers:
 *
 *     CC=clang cmake -B build-fuzz -DBALLAST_FUZZ=ON -DBALLAST_SANITIZE=address,undefined
 *     cmake --build build-fuzz && build-fuzz/fuzz_csv -max_total_time=60
 *
 * Give it a folder of examples first (build-fuzz/fuzz_csv DIR). A new one is a file fuzz_NAME.c
 * here with one function, fuzz(bytes, count). Nothing that the bytes say may crash, leak or be read
 * out of bounds; a refusal must say why. */
#ifndef BL_FUZZ_H
#define BL_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"

static void fuzz(const char *bytes, size_t count);

/* A refusal without a sentence is a bug, and so is one that does not name the file. */
static inline void check(bl_status status)
{
    if (status != BL_OK && status != BL_NO_MEMORY && !strstr(bl_error(), "case"))
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t count);
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t count)
{
    fuzz((const char *)bytes, count);
    return 0;
}

#endif
