/* What every layer may use: failures, memory arenas, text, files. */
#ifndef BL_BASE_H
#define BL_BASE_H

#include <stdarg.h>
#include <stdio.h>

#include "ballast/array.h"

/* Sets the thread's message (printf) and returns `code`: return bl_fail(BL_INVALID, "..", ..); */
bl_status bl_fail(bl_status code, const char *format, ...) BL_PRINTF(2, 3);
/* Puts "prefix: " before the thread's message and returns `code`. */
bl_status bl_fail_in(bl_status code, const char *prefix_format, ...) BL_PRINTF(2, 3);
bl_status bl_no_memory(size_t bytes);

/* --- allocation: every allocation of the library goes through these, so that tests can make the
 * n-th one fail (bl_fail_allocation(n); 0 turns it off; counts on this thread). */
void *bl_alloc(size_t bytes);         /* zero-filled; NULL on failure */
void *bl_alloc_aligned(size_t bytes); /* 64-byte aligned, zero-filled */
void *bl_alloc_unset(size_t bytes);   /* aligned; for what is written before it is read */
void *bl_resize(void *block, size_t bytes);
void bl_release(void *block); /* any of these */
void bl_fail_allocation(int64_t n);

/* The values of an array in double, with room for one even if it has none; NULL if memory is short.
 */
double *bl_array_doubles(const bl_array *array);
/* Makes room for one more element in a growing array: BL_GROW(items, count, capacity) is false if
 * memory is short. */
#define BL_GROW(items, count, capacity)                                                            \
    bl_grow((void **)&(items), (size_t)(count), &(capacity), sizeof *(items))
bool bl_grow(void **items, size_t count, size_t *capacity, size_t size);

/* --- arena: many small allocations, freed together */
typedef struct bl_arena bl_arena;
bl_arena *bl_arena_new(void);
void bl_arena_free(bl_arena *arena);
void *bl_arena_alloc(bl_arena *arena,
                     size_t bytes); /* zero-filled, 16-byte aligned; NULL on failure */
char *bl_arena_text(bl_arena *arena, const char *text);

/* --- text */
typedef struct bl_text { /* a growing string; failure is remembered, checked once at the end */
    char *at;
    size_t length, capacity;
    bool failed;
} bl_text;
void bl_text_add(bl_text *text, const char *format, ...) BL_PRINTF(2, 3);
void bl_text_add_n(bl_text *text, const char *bytes, size_t count);
/* A cell of CSV, in quotes where it must be; what separates cells is the caller's. */
void bl_text_add_cell(bl_text *text, const char *cell, char delimiter);
void bl_text_free(bl_text *text);
char *bl_copy_text(const char *text);                     /* bl_release it */
char *bl_format(const char *format, ...) BL_PRINTF(1, 2); /* bl_release it */
/* The candidate nearest to `name` in edit distance, or NULL if none is near: "did you mean elr?" */
const char *bl_nearest(const char *name, const char *const *candidates, int count);
/* The length of the UTF-8 sequence at `text`, of which `left` bytes are there; 0: it is none. */
size_t bl_utf8_length(const char *text, size_t left);
/* Makes a text, in place, one that a terminal and JSON can take: control characters become spaces,
 * bytes that are not UTF-8 question marks. */
void bl_clean_text(char *text);
bool bl_parse_double(const char *text, double *out); /* the whole text, C locale */
bool bl_parse_int(const char *text, int64_t *out);
void bl_sort_doubles(double *x, size_t count); /* ascending; a NaN goes anywhere */
/* Since some moment in the past, while the machine runs: it is not set back, and sleep is no time. */
double bl_seconds_now(void);
int bl_compare_texts(const void *a, const void *b); /* for qsort and bsearch of char * */
uint64_t bl_hash(const void *bytes, size_t count,
                 uint64_t seed); /* FNV-1a 64, for keys, not secrets */

/* --- files */
bl_status bl_read_file(const char *path, char **bytes,
                       size_t *count); /* one 0 byte after the end; bl_release it */
/* Writes to a temporary name beside `path`, syncs, renames: the file is whole or untouched. */
bl_status bl_write_file(const char *path, const void *bytes, size_t count);
typedef struct bl_piece {
    const void *bytes;
    size_t count;
} bl_piece;
bl_status bl_write_pieces(const char *path, const bl_piece *piece, size_t pieces); /* in a row */

/* --- safetensors: a flat dictionary of named arrays with a metadata dictionary of strings */
typedef struct bl_dictionary {
    struct bl_entry {
        char *name;
        bl_array array;
    } * entry;
    size_t count, capacity;
    struct bl_note {
        char *key, *value;
    } * note;
    size_t notes, note_capacity;
} bl_dictionary;
bl_array *bl_dictionary_find(const bl_dictionary *d, const char *name); /* NULL if absent */
/* Takes the array over (also on failure). Replaces one of the same name. */
bl_status bl_dictionary_set(bl_dictionary *d, const char *name, bl_array array);
const char *bl_dictionary_note(const bl_dictionary *d, const char *key);
bl_status bl_dictionary_set_note(bl_dictionary *d, const char *key, const char *value);
void bl_dictionary_free(bl_dictionary *d);
/* Names in the file must be unique, dtypes F32 F64 I32 U32 I8 U8 BOOL (F16 and BF16 are widened to
 * f32, I64 narrowed to i32 where every value fits), offsets exact. A malformed file is BL_INVALID
 * with the place. */
bl_status bl_safetensors_read(const char *path, bl_dictionary *out);
bl_status bl_safetensors_parse(const char *bytes, size_t count, const char *where,
                               bl_dictionary *out);
bl_status bl_safetensors_write(const char *path, const bl_dictionary *d);

#endif
