/* Memory: every allocation of the library, and arenas of small ones that are freed together.
 *
 * All go through allowed(), so that a test can make the n-th allocation fail. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local int64_t allocations_until_failure;

static bool allowed(void)
{
    if (allocations_until_failure == 0)
        return true;
    return --allocations_until_failure != 0;
}

void bl_fail_allocation(int64_t n)
{
    allocations_until_failure = n > 0 ? n : 0;
}

void *bl_alloc(size_t bytes)
{
    return allowed() ? calloc(1, bytes ? bytes : 1) : NULL;
}

static size_t whole_lines(size_t bytes)
{
    return bytes ? (bytes + 63) / 64 * 64 : 64;
}

void *bl_alloc_unset(size_t bytes)
{
    return bytes <= SIZE_MAX - 64 && allowed() ? aligned_alloc(64, whole_lines(bytes)) : NULL;
}

void *bl_alloc_aligned(size_t bytes)
{
    void *block = bl_alloc_unset(bytes);
    if (block)
        memset(block, 0, whole_lines(bytes));
    return block;
}

void *bl_resize(void *block, size_t bytes)
{
    return allowed() ? realloc(block, bytes ? bytes : 1) : NULL;
}

void bl_release(void *block)
{
    free(block);
}

bool bl_grow(void **items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity < 8 ? 8 : *capacity * 2;
    if (wanted < *capacity || wanted > SIZE_MAX / size)
        return false;
    void *larger = bl_resize(*items, wanted * size);
    if (!larger)
        return false;
    *items = larger;
    *capacity = wanted;
    return true;
}

/* An arena is a chain of blocks; the first is the one being filled. */
enum { ARENA_BLOCK = 64 * 1024, ARENA_ALIGNMENT = 16 };

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(ARENA_ALIGNMENT) char bytes[];
};

struct bl_arena {
    struct block *first;
};

bl_arena *bl_arena_new(void)
{
    return bl_alloc(sizeof(bl_arena));
}

void bl_arena_free(bl_arena *arena)
{
    if (!arena)
        return;
    for (struct block *b = arena->first, *next; b; b = next) {
        next = b->next;
        bl_release(b);
    }
    bl_release(arena);
}

void *bl_arena_alloc(bl_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX - 2 * ARENA_BLOCK)
        return NULL;
    size_t rounded = (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    struct block *b = arena->first;
    if (!b || b->size - b->used < rounded) {
        size_t size = rounded > ARENA_BLOCK ? rounded : ARENA_BLOCK;
        struct block *fresh = bl_alloc(sizeof *fresh + size);
        if (!fresh)
            return NULL;
        fresh->size = size;
        if (b && rounded > ARENA_BLOCK / 2) { /* keep filling the old one */
            fresh->next = b->next;
            b->next = fresh;
        } else {
            fresh->next = b;
            arena->first = fresh;
        }
        b = fresh;
    }
    void *at = b->bytes + b->used;
    b->used += rounded;
    return at;
}

char *bl_arena_text(bl_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = bl_arena_alloc(arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}
