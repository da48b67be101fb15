/* Mixed and masked inputs: mixup, CutMix, cutout. */
#include "methods/classical/baselines/weights.h"

/* --- draws ------------------------------------------------------------------------------------ */

/* i32 of `shape`, uniform in 0..n-1. */
static bl_tensor uniform_integers(bl_tensor key, bl_shape shape, int64_t n)
{
    bl_tensor u = bl_mul(bl_uniform(key, shape), (double)n);
    return bl_min(bl_cast(bl_floor(u), BL_I32), (double)(n - 1));
}

/* Labels become distributions; regression targets are mixed as they are. */
static void set_mixed_targets(bl_step *s, bl_tensor targets)
{
    s->targets = targets;
    if (s->target_form == BL_LABELS)
        s->target_form = BL_DISTRIBUTIONS;
}

static bl_tensor mixable_targets(bl_step *s)
{
    return s->target_form == BL_NUMBERS ? s->targets : bl_target_distributions(s);
}

/* --- mixup ------------------------------------------------------------------------------------ */

#define BASE_MIXUP(IN, OPT, OUT)                                                                   \
    IN(x, "f32[B,S...]", "grad", "inputs")                                                         \
    IN(target, "f32[B,C]", "", "distributions over classes, or values")                            \
    IN(perm, "i32[B]", "permutation", "each example's partner")                                    \
    IN(lam, "f32[] | f32[B]", "0 <= . <= 1", "share of the example itself")                        \
    OUT(x_mix, "f32[B,S...]", "lam x + (1-lam) x[perm]")                                           \
    OUT(target_mix, "f32[B,C]", "lam target + (1-lam) target[perm]")

static bl_tensor mix(bl_tensor x, bl_tensor perm, bl_tensor lam)
{
    if (bl_rank(lam) == 1) {
        bl_shape shape = {.rank = bl_rank(x), .dim = {bl_dim(lam, 0), 1, 1, 1, 1, 1, 1, 1}};
        lam = bl_reshape(lam, shape);
    }
    return bl_add(bl_mul(lam, x), bl_mul(bl_sub(1, lam), bl_take(x, perm)));
}

BL_CONTRACT(base_mixup, BASE_MIXUP, "mixes pairs of examples (Zhang et al. 2018)")
{
    f->x_mix = mix(f->x, f->perm, f->lam);
    f->target_mix = mix(f->target, f->perm, f->lam);
}

#define MIXUP(OPT)                                                                                 \
    OPT(alpha, 0.2, "(0,inf), tune [0.1,1] log", "lam ~ Beta(alpha, alpha), one draw a batch")

BL_ARM_OPTIONS(mixup, MIXUP)

static void mixup_batch(bl_step *s, const void *options)
{
    const struct mixup *o = options;
    struct base_mixup f = {.x = s->inputs, .target = mixable_targets(s)};
    f.perm = bl_permutation(bl_step_key(s, "permutation"), s->batch);
    f.lam = bl_beta_symmetric(bl_step_key(s, "lam"), o->alpha, BL_SCALAR);
    bl_call(base_mixup, &f);
    s->inputs = f.x_mix;
    set_mixed_targets(s, f.target_mix);
    bl_measure(s, "mixed", bl_min(f.lam, bl_sub(1, f.lam)));
}

const bl_method bl_mixup = {
    .slug = "mixup",
    .family = "classical",
    .paper = "Zhang et al. 2018, arXiv 1710.09412",
    .summary = "trains on blends of pairs of examples and targets",
    .when = "A safe first choice on images and tables, and under label noise with a larger alpha "
            "(1 to 8). Nearly free; wants longer training.",
    .functions = {&base_mixup_contract},
    .options = &mixup_contract,
    .example = "--arm \"mixup(alpha=0.2)\"",
    .traits = BL_SOFTENS_LABELS,
    .hooks = &(const bl_hooks){.batch = mixup_batch},
};

/* --- CutMix ----------------------------------------------------------------------------------- */

#define BASE_CUTMIX(IN, OPT, OUT)                                                                  \
    IN(x, "f32[B,H,W,D]", "grad", "images")                                                        \
    IN(target, "f32[B,C]", "", "distributions over classes")                                       \
    IN(perm, "i32[B]", "permutation", "each image's partner")                                      \
    IN(cy, "i32[]", "0 <= . < H", "row of the box's centre")                                       \
    IN(cx, "i32[]", "0 <= . < W", "column of the box's centre")                                    \
    IN(lam, "f32[]", "0 <= . <= 1", "share of the image kept, before clipping")                    \
    OUT(x_mix, "f32[B,H,W,D]", "inside the box from x[perm]")                                      \
    OUT(target_mix, "f32[B,C]", "lam_used target + (1-lam_used) target[perm]")                     \
    OUT(lam_used, "f32[]", "1 - area of the clipped box / (H W)")                                  \
    OUT(box, "i32[4]", "y1, y2, x1, x2; ends exclusive")

/* centre - half .. centre + half, clipped to 0..size. */
typedef struct span {
    bl_tensor first, stop; /* i32 */
} span;

static span clipped_span(bl_tensor centre, bl_tensor half, int64_t size)
{
    return (span){bl_max(bl_sub(centre, half), 0), bl_min(bl_add(centre, half), (double)size)};
}

/* The integer half of side * size, which is truncated first. */
static bl_tensor half_of(bl_tensor side, int64_t size)
{
    return bl_div(bl_cast(bl_mul(side, (double)size), BL_I32), 2);
}

/* bool of `shape`: is the index along `axis` inside the span? */
static bl_tensor inside(bl_graph *graph, span s, bl_shape shape, int axis)
{
    bl_tensor at = bl_iota(graph, BL_I32, shape, axis);
    return bl_and(bl_ge(at, s.first), bl_lt(at, s.stop));
}

BL_CONTRACT(base_cutmix, BASE_CUTMIX, "pastes a box from another image (Yun et al. 2019)")
{
    int64_t height = bl_dim(f->x, 1), width = bl_dim(f->x, 2);
    bl_tensor side = bl_sqrt(bl_sub(1, f->lam));
    span rows = clipped_span(f->cy, half_of(side, height), height);
    span columns = clipped_span(f->cx, half_of(side, width), width);
    bl_shape pixels = BL_SHAPE(1, height, width, bl_dim(f->x, 3)); /* read along whole images */
    bl_tensor box = bl_and(inside(graph, rows, pixels, 1), inside(graph, columns, pixels, 2));
    bl_tensor area = bl_mul(bl_sub(rows.stop, rows.first), bl_sub(columns.stop, columns.first));

    f->lam_used = bl_sub(1, bl_div(bl_cast(area, BL_F32), (double)(height * width)));
    f->x_mix = bl_select(box, bl_take(f->x, f->perm), f->x);
    f->target_mix = mix(f->target, f->perm, f->lam_used);
    bl_tensor corner[] = {rows.first, rows.stop, columns.first, columns.stop};
    for (int i = 0; i < 4; i++)
        corner[i] = bl_reshape(corner[i], BL_SHAPE(1));
    f->box = bl_concat(corner, 4, 0);
}

#define CUTMIX(OPT)                                                                                \
    OPT(alpha, 1.0, "(0,inf), tune [0.3,2] log", "lam ~ Beta(alpha, alpha), one draw a batch")     \
    OPT(probability, 0.5, "[0,1], tune [0.2,1]", "share of the batches that are mixed")

BL_ARM_OPTIONS(cutmix, CUTMIX)

static void cutmix_batch(bl_step *s, const void *options)
{
    const struct cutmix *o = options;
    struct base_cutmix f = {.x = s->inputs, .target = mixable_targets(s)};
    bl_tensor applied = bl_lt(bl_uniform(bl_step_key(s, "applied"), BL_SCALAR), o->probability);
    f.lam = bl_select(applied, bl_beta_symmetric(bl_step_key(s, "lam"), o->alpha, BL_SCALAR), 1);
    f.perm = bl_permutation(bl_step_key(s, "permutation"), s->batch);
    f.cy = uniform_integers(bl_step_key(s, "row"), BL_SCALAR, bl_dim(s->inputs, 1));
    f.cx = uniform_integers(bl_step_key(s, "column"), BL_SCALAR, bl_dim(s->inputs, 2));
    bl_call(base_cutmix, &f);
    s->inputs = f.x_mix;
    set_mixed_targets(s, f.target_mix);
    bl_measure(s, "pasted", bl_sub(1, f.lam_used));
}

const bl_method bl_cutmix = {
    .slug = "cutmix",
    .family = "classical",
    .paper = "Yun et al. 2019, arXiv 1905.04899",
    .summary = "pastes a box from another image and mixes the targets",
    .when = "Natural images with objects that fill them; hardly on digits. Nearly free; wants "
            "longer training.",
    .functions = {&base_cutmix_contract},
    .options = &cutmix_contract,
    .example = "--arm \"cutmix(probability=0.5)\"",
    .traits = BL_SOFTENS_LABELS | BL_IMAGE_INPUTS,
    .hooks = &(const bl_hooks){.batch = cutmix_batch},
};

/* --- cutout ----------------------------------------------------------------------------------- */

#define BASE_CUTOUT(IN, OPT, OUT)                                                                  \
    IN(x, "f32[B,H,W,D]", "", "images")                                                            \
    IN(cy, "i32[B]", "0 <= . < H", "row of each centre")                                           \
    IN(cx, "i32[B]", "0 <= . < W", "column of each centre")                                        \
    OPT(length, 8, ">= 0", "side of the square; an odd one loses a pixel")                         \
    OPT(fill, 0.0, "finite", "value put there")                                                    \
    OUT(y, "f32[B,H,W,D]", "fill in rows cy - length/2 .. cy + length/2, clipped; columns alike")

BL_CONTRACT(base_cutout, BASE_CUTOUT, "masks a square of each image (DeVries and Taylor 2017)")
{
    int64_t batch = bl_dim(f->x, 0), height = bl_dim(f->x, 1), width = bl_dim(f->x, 2);
    bl_shape each = BL_SHAPE(batch, 1, 1, 1), pixels = BL_SHAPE(batch, height, width, 1);
    bl_tensor half = bl_number((double)(f->length / 2));
    span rows = clipped_span(bl_reshape(f->cy, each), half, height);
    span columns = clipped_span(bl_reshape(f->cx, each), half, width);
    bl_tensor square = bl_and(inside(graph, rows, pixels, 1), inside(graph, columns, pixels, 2));
    f->y = bl_select(square, f->fill, f->x);
}

static void cutout_batch(bl_step *s, const void *options)
{
    struct base_cutout f = *(const struct base_cutout *)options;
    f.x = s->inputs;
    f.cy = uniform_integers(bl_step_key(s, "row"), BL_SHAPE(s->batch), bl_dim(s->inputs, 1));
    f.cx = uniform_integers(bl_step_key(s, "column"), BL_SHAPE(s->batch), bl_dim(s->inputs, 2));
    bl_call(base_cutout, &f);
    s->inputs = f.y;
}

const bl_method bl_cutout = {
    .slug = "cutout",
    .family = "classical",
    .paper = "DeVries and Taylor 2017, arXiv 1708.04552",
    .summary = "masks a random square of each image with the mean",
    .when =
        "Images of 28 pixels and more, a side of a quarter to a half of the image. Nearly free.",
    .functions = {&base_cutout_contract},
    .example = "--arm \"cutout(length=12)\"",
    .traits = BL_IMAGE_INPUTS,
    .hooks = &(const bl_hooks){.batch = cutout_batch},
};
