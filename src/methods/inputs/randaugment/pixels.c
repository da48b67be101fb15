/* Pixel operations of RandAugment. Operations on values alone are table look-ups; blends with a
 * degenerate image go over stretches of it in loops that vectorise; geometric ones walk the target
 * and look up the nearest source.
 *
 * To add one: a row in ra_op and RA_NAMES, its argument in ra_level, a case in ra_apply. */
#include <math.h>
#include <string.h>

#include "methods/inputs/randaugment/pixels.h"

/* --- arguments -------------------------------------------- */

ra_op ra_op_named(const char *name)
{
    size_t length = strlen(name);
    int op = 0;
    for (const char *at = RA_NAMES; op < RA_OPS - 1; op++, at += strcspn(at, "|") + 1)
        if (strcspn(at, "|") == length && strncmp(at, name, length) == 0)
            break;
    return (ra_op)op;
}

static double between(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

double ra_level(ra_op op, double level, const ra_settings *s)
{
    double r = level / 10.0;
    switch (op) {
    case RA_ROTATE:
        return 30 * r;
    case RA_POSTERIZE:
        return between(s->monotone ? 8 - trunc(4 * r) : trunc(4 * r), 0, 8);
    case RA_SOLARIZE:
        return s->monotone ? fmax(0, 256 - trunc(256 * r)) : trunc(256 * r);
    case RA_SOLARIZE_ADD:
        return trunc(110 * r);
    case RA_COLOR:
    case RA_CONTRAST:
    case RA_BRIGHTNESS:
    case RA_SHARPNESS:
        return s->monotone ? 0.9 * r : 1.8 * r + 0.1;
    case RA_SHEAR_X:
    case RA_SHEAR_Y:
        return 0.3 * r;
    case RA_TRANSLATE_X:
    case RA_TRANSLATE_Y:
        return s->translate_const * r;
    case RA_CUTOUT:
        return trunc(s->cutout_const * r);
    default:
        return 0;
    }
}

static bool is_blend(ra_op op)
{
    return op >= RA_COLOR && op <= RA_SHARPNESS;
}

double ra_signed(ra_op op, double argument, int sign, const ra_settings *settings)
{
    if (op == RA_ROTATE || (op >= RA_SHEAR_X && op <= RA_TRANSLATE_Y))
        return argument * sign;
    if (is_blend(op) && settings->monotone)
        return fmax(0.1, 1 + sign * argument);
    return argument;
}

/* --- operations on values -------------------------------------------- */

typedef uint8_t table[256];

static void look_up(const ra_image *m, const table *t, int64_t tables)
{
    int64_t pixels = m->height * m->width, channels = m->channels;
    if (tables == 1) {
        for (int64_t i = 0; i < pixels * channels; i++)
            m->out[i] = t[0][m->in[i]];
        return;
    }
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = c; i < pixels * channels; i += channels)
            m->out[i] = t[c][m->in[i]];
}

static void stretch(const int64_t *histogram, table t)
{
    int low = 0, high = 255;
    while (low < 255 && !histogram[low])
        low++;
    while (high > 0 && !histogram[high])
        high--;
    for (int v = 0; v < 256; v++)
        t[v] = (uint8_t)(high > low && v >= low && v <= high ? 255 * (v - low) / (high - low) : v);
}

static void equalize(const int64_t *histogram, table t)
{
    int64_t sum = 0, last = 0, before = 0;
    for (int v = 0; v < 256; v++) {
        sum += histogram[v];
        last = histogram[v] ? histogram[v] : last;
    }
    int64_t step = (sum - last) / 255;
    for (int v = 0; v < 256; v++) {
        int64_t level = v && step ? (before + step / 2) / step : 0;
        t[v] = (uint8_t)(step == 0 ? v : level < 255 ? level : 255);
        before += histogram[v];
    }
}

/* One channel after the other, so that any number of channels needs one table. */
static void by_histogram(const ra_image *m, void (*choose)(const int64_t *histogram, table t))
{
    int64_t pixels = m->height * m->width, channels = m->channels;
    for (int64_t c = 0; c < channels; c++) {
        int64_t histogram[256] = {0};
        table t;
        for (int64_t i = c; i < pixels * channels; i += channels)
            histogram[m->in[i]]++;
        choose(histogram, t);
        for (int64_t i = c; i < pixels * channels; i += channels)
            m->out[i] = t[m->in[i]];
    }
}

static void by_value(ra_op op, double argument, const ra_image *m)
{
    table t;
    double whole = trunc(argument);
    int bits = op == RA_POSTERIZE ? 8 - (int)whole : 0;
    for (int v = 0; v < 256; v++) {
        int value = v;
        if (op == RA_INVERT)
            value = 255 - v;
        else if (op == RA_POSTERIZE)
            value = v >> bits << bits;
        else if (op == RA_SOLARIZE)
            value = v < whole ? v : 255 - v;
        else if (op == RA_SOLARIZE_ADD && v < 128)
            value = (int)between(v + whole, 0, 255);
        t[v] = (uint8_t)value;
    }
    look_up(m, (const table *)&t, 1);
}

/* --- blends -------------------------------------------- */

/* trunc(clamp(d + f (v - d), 0, 255)) in double. */
static inline uint8_t blended(double factor, int d, int v)
{
    double x = (double)d + factor * (double)(v - d);
    x = x > 0 ? x : 0;
    x = x < 255 ? x : 255;
    return (uint8_t)(int)x;
}

/* A stretch of values with their degenerate ones: a loop without branches, which vectorises. */
enum { STRETCH = 768 };
static void blend_stretch(double factor, const uint8_t *d, const uint8_t *v, uint8_t *out,
                          int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = blended(factor, d[i], v[i]);
}

static inline int grey(const uint8_t *p, int64_t channels)
{
    if (channels == 1)
        return p[0];
    return (int)((0.2989 * p[0] + 0.587 * p[1] + 0.114 * p[2]) * 255.5 / 255);
}

static void blend_color(double factor, const ra_image *m)
{
    int64_t values = m->height * m->width * m->channels, channels = m->channels;
    uint8_t d[STRETCH]; /* of whole pixels: there are one or three channels */
    for (int64_t from = 0; from < values; from += STRETCH) {
        int64_t n = values - from < STRETCH ? values - from : STRETCH;
        for (int64_t i = 0; i < n; i += channels)
            memset(d + i, grey(m->in + from + i, channels), (size_t)channels);
        blend_stretch(factor, d, m->in + from, m->out + from, n);
    }
}

static void blend_constant(double factor, int d, const ra_image *m)
{
    table t;
    for (int v = 0; v < 256; v++)
        t[v] = blended(factor, d, v);
    look_up(m, (const table *)&t, 1);
}

static int contrast_constant(bool official, const ra_image *m)
{
    int64_t pixels = m->height * m->width, sum = 0;
    if (official)
        return (int)fmin(255, (double)pixels / 256);
    for (int64_t i = 0; i < pixels; i++)
        sum += grey(m->in + i * m->channels, m->channels);
    return pixels ? (int)((double)sum / (double)pixels + 0.5) : 0;
}

/* (sum of the eight neighbours + 5 v) // 13, for n values of a row's inside; at most 3315 / 13. */
static void smooth_stretch(const uint8_t *v, int64_t row, int64_t c, uint8_t *d, int64_t n)
{
    const uint8_t *up = v - row, *down = v + row;
    for (int64_t i = 0; i < n; i++) {
        int above = up[i - c] + up[i] + up[i + c], below = down[i - c] + down[i] + down[i + c];
        int sum = above + below + v[i - c] + v[i + c] + 5 * v[i];
        d[i] = (uint8_t)((uint16_t)sum / 13u);
    }
}

/* The border keeps its values. */
static void blend_sharpness(double factor, const ra_image *m)
{
    int64_t row = m->width * m->channels, c = m->channels;
    uint8_t d[STRETCH];
    memcpy(m->out, m->in, (size_t)(m->height * row));
    for (int64_t y = 1; y + 1 < m->height; y++)
        for (int64_t from = y * row + c, end = (y + 1) * row - c; from < end; from += STRETCH) {
            int64_t n = end - from < STRETCH ? end - from : STRETCH;
            smooth_stretch(m->in + from, row, c, d, n);
            blend_stretch(factor, d, m->in + from, m->out + from, n);
        }
}

static void blend_with(ra_op op, double factor, const ra_settings *s, const ra_image *m)
{
    if (op == RA_COLOR)
        blend_color(factor, m);
    else if (op == RA_SHARPNESS)
        blend_sharpness(factor, m);
    else
        blend_constant(factor, op == RA_CONTRAST ? contrast_constant(s->official_mean, m) : 0, m);
}

/* --- geometry -------------------------------------------- */

/* round(v), half away from zero, where that lies in 0..size-1; else -1. Also for infinite v. */
static inline int64_t nearest(double v, int64_t size)
{
    if (!(v > -0.5 && v < (double)size - 0.5))
        return -1;
    int64_t whole = (int64_t)v;
    return whole + (v - (double)whole >= 0.5);
}

static inline void copy_pixel(const ra_image *m, int64_t to, int64_t y, int64_t x, uint8_t fill)
{
    int64_t c = m->channels;
    uint8_t *out = m->out + to * c;
    const uint8_t *in = m->in + (y * m->width + x) * c;
    bool inside = y >= 0 && x >= 0;
    if (c == 3) {
        out[0] = inside ? in[0] : fill;
        out[1] = inside ? in[1] : fill;
        out[2] = inside ? in[2] : fill;
        return;
    }
    for (int64_t i = 0; i < c; i++)
        out[i] = inside ? in[i] : fill;
}

/* A row moved sideways by s: column x comes from nearest(x + s). */
static void move_row(const ra_image *m, int64_t y, double s, uint8_t fill)
{
    for (int64_t x = 0; x < m->width; x++)
        copy_pixel(m, y * m->width + x, y, nearest((double)x + s, m->width), fill);
}

static void move_along_x(const ra_image *m, double per_row, double constant, uint8_t fill)
{
    for (int64_t y = 0; y < m->height; y++)
        move_row(m, y, per_row * (double)y + constant, fill);
}

/* sy = per_column x + y, or y + constant. */
static void move_along_y(const ra_image *m, double per_column, double constant, uint8_t fill)
{
    for (int64_t y = 0; y < m->height; y++)
        for (int64_t x = 0; x < m->width; x++) {
            double s = per_column * (double)x + constant;
            copy_pixel(m, y * m->width + x, nearest((double)y + s, m->height), x, fill);
        }
}

static void rotate(const ra_image *m, double degrees, uint8_t fill)
{
    double t = degrees * 3.14159265358979323846 / 180, cosine = cos(t), sine = sin(t);
    double w = (double)(m->width - 1), h = (double)(m->height - 1);
    double xo = (w - (cosine * w - sine * h)) / 2, yo = (h - (sine * w + cosine * h)) / 2;
    for (int64_t y = 0; y < m->height; y++)
        for (int64_t x = 0; x < m->width; x++) {
            double sx = cosine * (double)x - sine * (double)y + xo;
            double sy = sine * (double)x + cosine * (double)y + yo;
            int64_t from_x = nearest(sx, m->width);
            copy_pixel(m, y * m->width + x, nearest(sy, m->height), from_x, fill);
        }
}

static void cut_out(const ra_image *m, const int32_t centre[2], double half, uint8_t fill)
{
    int64_t row = m->width * m->channels;
    memcpy(m->out, m->in, (size_t)(m->height * row));
    int64_t y0 = (int64_t)fmax(0, centre[0] - half), x0 = (int64_t)fmax(0, centre[1] - half);
    int64_t y1 = (int64_t)fmin((double)m->height, centre[0] + half);
    int64_t x1 = (int64_t)fmin((double)m->width, centre[1] + half);
    for (int64_t y = y0; y < y1 && x0 < x1; y++)
        memset(m->out + y * row + x0 * m->channels, fill, (size_t)((x1 - x0) * m->channels));
}

/* --- all -------------------------------------------- */

static bl_status check(ra_op op, double argument, const int32_t centre[2], const ra_image *m)
{
    if (!isfinite(argument))
        return bl_fail(BL_INVALID, "arg is %g, expected a finite number", argument);
    if (op == RA_POSTERIZE && !(trunc(argument) >= 0 && trunc(argument) <= 8))
        return bl_fail(BL_INVALID, "arg of Posterize is %g, expected 0 to 8 bits", argument);
    if ((op == RA_COLOR || op == RA_CONTRAST) && m->channels != 1 && m->channels != 3)
        return bl_fail(BL_INVALID,
                       "image has %lld channels, expected 1 or 3 for Color and Contrast",
                       (long long)m->channels);
    if (op == RA_CUTOUT &&
        !(centre[0] >= 0 && centre[0] < m->height && centre[1] >= 0 && centre[1] < m->width))
        return bl_fail(BL_INVALID, "center is (%d, %d), expected a pixel of %lld rows by %lld",
                       centre[0], centre[1], (long long)m->height, (long long)m->width);
    return BL_OK;
}

bl_status ra_apply(ra_op op, double argument, const int32_t centre[2], const ra_settings *s,
                   const ra_image *m)
{
    BL_TRY(check(op, argument, centre, m));
    if (op == RA_IDENTITY || op == RA_OPS || (is_blend(op) && argument == 1))
        memcpy(m->out, m->in, (size_t)(m->height * m->width * m->channels));
    else if (op == RA_AUTO_CONTRAST || op == RA_EQUALIZE)
        by_histogram(m, op == RA_EQUALIZE ? equalize : stretch);
    else if (op == RA_ROTATE)
        rotate(m, argument, s->fill);
    else if (is_blend(op))
        blend_with(op, argument, s, m);
    else if (op == RA_SHEAR_X || op == RA_TRANSLATE_X)
        move_along_x(m, op == RA_SHEAR_X ? argument : 0, op == RA_SHEAR_X ? 0 : argument, s->fill);
    else if (op == RA_SHEAR_Y || op == RA_TRANSLATE_Y)
        move_along_y(m, op == RA_SHEAR_Y ? argument : 0, op == RA_SHEAR_Y ? 0 : argument, s->fill);
    else if (op == RA_CUTOUT)
        cut_out(m, centre, trunc(argument), s->fill);
    else
        by_value(op, argument, m);
    return BL_OK;
}
