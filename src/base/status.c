/* The thread's error message: the only mutable state of the library outside its objects.
 *
 * A message names what was wrong, the place, and what was expected. */
#include "base/base.h"

#include <string.h>

static _Thread_local char message[1024];

const char *bl_error(void)
{
    return message;
}

/* The new text is formed apart, since an argument may be the old message itself. */
bl_status bl_fail(bl_status code, const char *format, ...)
{
    char text[sizeof message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    bl_clean_text(text); /* it may quote a file */
    memcpy(message, text, sizeof message);
    return code;
}

bl_status bl_fail_in(bl_status code, const char *prefix_format, ...)
{
    char text[2 * sizeof message + 2], prefix[sizeof message];
    va_list arguments;
    va_start(arguments, prefix_format);
    vsnprintf(prefix, sizeof prefix, prefix_format, arguments);
    va_end(arguments);
    snprintf(text, sizeof text, "%s: %s", prefix, message);
    text[sizeof message - 1] = '\0';
    bl_clean_text(text);
    memcpy(message, text, sizeof message);
    return code;
}

bl_status bl_no_memory(size_t bytes)
{
    return bl_fail(BL_NO_MEMORY, "out of memory: an allocation of %zu bytes failed", bytes);
}
