/* The seventeen operations of RandAugment on u8 images, exact to the last bit: geometry, blending
 * and means are computed in double, and the file is compiled without fused multiply-add. */
#ifndef BL_METHODS_RANDAUGMENT_PIXELS_H
#define BL_METHODS_RANDAUGMENT_PIXELS_H

#include "base/base.h"

typedef enum ra_op {
    RA_IDENTITY,
    RA_AUTO_CONTRAST,
    RA_EQUALIZE,
    RA_INVERT,
    RA_ROTATE,
    RA_POSTERIZE,
    RA_SOLARIZE,
    RA_SOLARIZE_ADD,
    RA_COLOR,
    RA_CONTRAST,
    RA_BRIGHTNESS,
    RA_SHARPNESS,
    RA_SHEAR_X,
    RA_SHEAR_Y,
    RA_TRANSLATE_X,
    RA_TRANSLATE_Y,
    RA_CUTOUT,
    RA_OPS
} ra_op;

/* In the order of ra_op, as an option's range. */
#define RA_NAMES                                                                                   \
    "Identity|AutoContrast|Equalize|Invert|Rotate|Posterize|Solarize|SolarizeAdd|Color|Contrast|"  \
    "Brightness|Sharpness|ShearX|ShearY|TranslateX|TranslateY|Cutout"
ra_op ra_op_named(const char *name); /* one of RA_NAMES */

typedef struct ra_image {
    int64_t height, width, channels;
    const uint8_t *in;
    uint8_t *out; /* another buffer than in */
} ra_image;

typedef struct ra_settings {
    bool monotone;      /* the level map: a larger level is a stronger change */
    bool official_mean; /* Contrast's constant: the official code's, or the mean grey */
    double translate_const, cutout_const;
    uint8_t fill;
} ra_settings;

/* The unsigned argument of an operation at a level. */
double ra_level(ra_op op, double level, const ra_settings *settings);
/* The argument that is applied: geometric ones are signed, and so are blending factors under the
 * monotone map. */
double ra_signed(ra_op op, double argument, int sign, const ra_settings *settings);

/* Errors: Posterize with bits outside 0..8; Color and Contrast with channels other than 1 or 3;
 * Cutout with its centre (row, column) outside the image; an argument that is not finite. */
bl_status ra_apply(ra_op op, double argument, const int32_t centre[2], const ra_settings *settings,
                   const ra_image *image);

#endif
