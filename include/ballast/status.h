/* Results and errors.
 *
 * Every function that can fail returns a bl_status, which may not be ignored. The message of the
 * last failure on this thread is bl_error(): what was wrong, where, and what was expected. */
#ifndef BALLAST_STATUS_H
#define BALLAST_STATUS_H

#if defined(BL_BUILDING)
#define BL_API __attribute__((visibility("default")))
#else
#define BL_API
#endif
#define BL_NODISCARD __attribute__((warn_unused_result))
#define BL_PRINTF(text, first) __attribute__((format(printf, text, first)))

typedef enum bl_status_code {
    BL_OK = 0,
    BL_INVALID,     /* the caller's value, shape, option or file content is wrong */
    BL_NOT_FOUND,   /* a file, column, method or data set does not exist */
    BL_IO,          /* reading or writing failed; nothing is half written */
    BL_NO_MEMORY,   /* an allocation failed */
    BL_UNSUPPORTED, /* meaningful, but this executor or build cannot do it */
    BL_INTERRUPTED  /* the user asked to stop; state was saved */
} bl_status_code;

typedef bl_status_code bl_status;

/* The message of the last failure on this thread; "" if there was none. Valid until the next one. */
BL_API const char *bl_error(void);

/* Frees a text that this library handed out: a summary, a plan, JSON. NULL is allowed. */
BL_API void bl_free_text(char *text);

/* Returns the status of `expression` to the caller unless it is BL_OK. */
#define BL_TRY(expression)                                                                         \
    do {                                                                                           \
        bl_status bl_try_status_ = (expression);                                                   \
        if (bl_try_status_ != BL_OK)                                                               \
            return bl_try_status_;                                                                 \
    } while (0)

#endif
