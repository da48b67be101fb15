/* RandAugment. Cubuk et al., NeurIPS 2020, arXiv 1909.13719. Every image gets N operations drawn at
 * random, all at one magnitude M: two numbers instead of a searched policy.
 *
 * The official code is the default of the functions. In its scale a larger M posterizes and
 * solarizes less, and the neutral blend lies at M = 5; the arm's default is the monotone scale, in
 * which a larger M is a stronger change throughout. The pixels are in pixels.c. */
#include "methods/inputs/randaugment/pixels.h"
#include "methods/method.h"

#define RANDAUGMENT_LEVEL(IN, OPT, OUT)                                                            \
    IN (levels,          "f32[K]",         "0 <= . <= 30",      "10 is the nominal maximum")       \
    OPT(op,              BL_REQUIRED_WORD, RA_NAMES,            "operation")                       \
    OPT(level_map,       "official",       "official|monotone", "scale of the levels")             \
    OPT(translate_const, 100.0,            "[0,inf)",           "pixels of a shift at level 10")   \
    OPT(cutout_const,    40.0,             "[0,inf)",           "half side of Cutout at level 10") \
    OUT(args,            "f32[K]",         "unsigned arguments of the operation")

BL_HOST(randaugment_level, RANDAUGMENT_LEVEL, "what a level means to an operation")
{
    ra_settings s = {.monotone = bl_is(f->level_map, "monotone"),
                     .translate_const = f->translate_const,
                     .cutout_const = f->cutout_const};
    int64_t count = bl_array_count(&f->levels);
    for (int64_t i = 0; i < count; i++)
        bl_array_set(&f->args, i, ra_level(ra_op_named(f->op), bl_array_get(&f->levels, i), &s));
    return BL_OK;
}

#define RANDAUGMENT_OP(IN, OPT, OUT)                                                               \
    IN (image,         "u8[H,W,C]",      "",             "pixels")                                 \
    IN (center,        "i32[2]",         "",             "row and column; used by Cutout only")    \
    OPT(op,            BL_REQUIRED_WORD, RA_NAMES,       "operation")                              \
    OPT(arg,           0.0,              "(-inf,inf)",   "its argument; signed if geometric")      \
    OPT(fill,          128,              "[0,255]",      "value of pixels from outside")           \
    OPT(contrast_mean, "pil",            "pil|official", "Contrast's constant: the mean grey")     \
    OUT(image,         "u8[H,W,C]",      "pixels")

BL_HOST_APART(randaugment_op, RANDAUGMENT_OP, "one operation on one image")
{
    ra_settings s = {.official_mean = bl_is(f->contrast_mean, "official"),
                     .fill = (uint8_t)f->fill};
    const int64_t *size = f->image.type.shape.dim;
    ra_image m = {size[0], size[1], size[2], bl_u8(&f->image), bl_u8(&f->out_image)};
    return ra_apply(ra_op_named(f->op), f->arg, bl_i32(&f->center), &s, &m);
}

#define RANDAUGMENT_APPLY(IN, OPT, OUT)                                                            \
    IN (images,          "u8[B,H,W,C]",  "",                  "pixels")                            \
    IN (ops,             "i32[B,N]",     "0 <= . <= 16",      "operations, in order")              \
    IN (signs,           "i32[B,N]",     "in {-1,1}",         "of the argument")                   \
    IN (centers,         "i32[B,N,2]",   "",                  "rows and columns, for Cutout")      \
    OPT(magnitude,       9.0,            "[0,30]",            "level of all operations")           \
    OPT(level_map,       "official",     "official|monotone", "scale of the levels")               \
    OPT(translate_const, 100.0,          "[0,inf)",           "pixels of a shift at level 10")     \
    OPT(cutout_const,    40.0,           "[0,inf)",           "half side of Cutout at level 10")   \
    OPT(fill,            128,            "[0,255]",           "value of pixels from outside")      \
    OPT(contrast_mean,   "pil",          "pil|official",      "Contrast's constant: mean grey")    \
    OUT(images,          "u8[B,H,W,C]",  "pixels")

/* One image through its operations; `spare` holds an image. The last operation writes to `out`. */
static bl_status augment(const uint8_t *in, uint8_t *out, uint8_t *spare, const int64_t size[3],
                         const int32_t *ops, const int32_t *signs, const int32_t *centres,
                         int64_t n, double magnitude, const ra_settings *s)
{
    ra_image m = {size[0], size[1], size[2], in, out};
    if (n == 0)
        memcpy(out, in, (size_t)(size[0] * size[1] * size[2]));
    for (int64_t i = 0; i < n; i++) {
        ra_op op = (ra_op)ops[i];
        double argument = ra_signed(op, ra_level(op, magnitude, s), signs[i], s);
        m.out = (n - 1 - i) % 2 ? spare : out;
        BL_TRY(ra_apply(op, argument, centres + 2 * i, s, &m));
        m.in = m.out;
    }
    return BL_OK;
}

BL_HOST_APART(randaugment_apply, RANDAUGMENT_APPLY, "the drawn operations on a batch of images")
{
    ra_settings s = {.monotone = bl_is(f->level_map, "monotone"),
                     .official_mean = bl_is(f->contrast_mean, "official"),
                     .translate_const = f->translate_const,
                     .cutout_const = f->cutout_const,
                     .fill = (uint8_t)f->fill};
    const int64_t *size = f->images.type.shape.dim + 1;
    int64_t images = f->images.type.shape.dim[0], n = f->ops.type.shape.dim[1];
    size_t bytes = (size_t)(size[0] * size[1] * size[2]);
    uint8_t *spare = bl_alloc(bytes + 1);
    bl_status status = spare ? BL_OK : bl_no_memory(bytes + 1);
    for (int64_t i = 0; i < images && status == BL_OK; i++) {
        status = augment(bl_u8(&f->images) + (size_t)i * bytes,
                         bl_u8(&f->out_images) + (size_t)i * bytes, spare, size,
                         bl_i32(&f->ops) + i * n, bl_i32(&f->signs) + i * n,
                         bl_i32(&f->centers) + i * n * 2, n, f->magnitude, &s);
        if (status != BL_OK)
            bl_fail_in(status, "image %lld", (long long)i);
    }
    bl_release(spare);
    return status;
}

#define RANDAUGMENT(OPT)                                                                           \
    OPT(n,         2,          "[0,16], tune [1,3]", "operations an image gets")                   \
    OPT(m,         9.0,        "[0,30], tune [3,15]", "their magnitude; 10 is the nominal maximum")\
    OPT(level_map, "monotone", "official|monotone", "scale of the magnitudes")                     \
    OPT(set,       "paper14",  "paper14|tpu16",     "operations drawn from: the paper's, or the "  \
                                                    "official code's")                             \
    OPT(fill,      128,        "[0,255], tune never", "value of pixels from outside")              \
    OPT(translate, 0.0,        "[0,inf)",           "pixels of a shift at magnitude 10; 0: 10/32 " \
                                                    "of the width")
BL_ARM_OPTIONS(randaugment, RANDAUGMENT)

enum { MOST_OPERATIONS = 16 };

/* The operations to draw from; Color has nothing to do on grey images. */
static int choose_set(const char *set, int64_t channels, int32_t out[RA_OPS])
{
    int count = 0;
    for (int32_t op = 0; op < RA_OPS; op++) {
        bool paper = op != RA_INVERT && op != RA_SOLARIZE_ADD && op != RA_CUTOUT;
        bool official = op != RA_IDENTITY;
        bool wanted = bl_is(set, "paper14") ? paper : official;
        if (wanted && !(op == RA_COLOR && channels == 1))
            out[count++] = op;
    }
    return count;
}

/* Every image draws from its own stream, so that the result depends on nothing else. */
static bl_status augment_batch(bl_training *t, const void *options, const uint8_t *in, uint8_t *out,
                               int64_t images, int64_t h, int64_t w, int64_t c, bl_key key)
{
    (void)t;
    const struct randaugment *o = options;
    double width = (double)w, shift = o->translate.number;
    ra_settings s = {.monotone = bl_is(o->level_map, "monotone"),
                     .translate_const = shift > 0 ? shift : width * 10 / 32,
                     .cutout_const = width * 40 / 224, /* the official 40 is for 224 pixels */
                     .fill = (uint8_t)o->fill};
    int32_t set[RA_OPS], ops[MOST_OPERATIONS], signs[MOST_OPERATIONS], centres[2 * MOST_OPERATIONS];
    int choices = choose_set(o->set, c, set);
    size_t bytes = (size_t)(h * w * c);
    uint8_t *spare = bl_alloc(bytes + 1);
    bl_status status = spare ? BL_OK : bl_no_memory(bytes + 1);
    for (int64_t i = 0; i < images && status == BL_OK; i++) {
        bl_random r = bl_random_new(bl_key_derive(key, (uint32_t)i));
        for (int64_t k = 0; k < o->n; k++) {
            ops[k] = set[bl_random_below(&r, (uint32_t)choices)];
            signs[k] = bl_random_below(&r, 2) ? 1 : -1;
            centres[2 * k] = (int32_t)bl_random_below(&r, (uint32_t)h);
            centres[2 * k + 1] = (int32_t)bl_random_below(&r, (uint32_t)w);
        }
        status = augment(in + (size_t)i * bytes, out + (size_t)i * bytes, spare,
                         (const int64_t[]){h, w, c}, ops, signs, centres, o->n, o->m.number, &s);
    }
    bl_release(spare);
    return status == BL_OK ? BL_OK : bl_fail_in(status, "randaugment");
}

static const bl_hooks randaugment_hooks = {.load = augment_batch};

const bl_method bl_randaugment = {
    .slug = "randaugment",
    .family = "inputs",
    .paper = "Cubuk et al. 2020, arXiv 1909.13719",
    .summary = "augments images by random operations, set by two numbers",
    .when = "The first augmentation to try on natural images. Costs time in the loader; images "
            "that are already aligned and of one size can be hurt by its geometry.",
    .functions = {&randaugment_apply_contract, &randaugment_op_contract,
                  &randaugment_level_contract},
    .options = &randaugment_contract,
    .example = "--arm \"randaugment(n=2,m=9)\"",
    .traits = BL_CLASSIFICATION | BL_IMAGE_INPUTS,
    .hooks = &randaugment_hooks,
};
