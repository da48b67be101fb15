/* Decoupled mixup. Liu et al., NeurIPS 2023, arXiv 2203.10761. In a mixed example's softmax the two
 * true classes compete, and the loss is content with a flat answer. The regularizer judges each of
 * the two without the other in the denominator, so that both may be predicted confidently.
 *
 * The official code pairs its two weights by class index in the first row; we pair them with the
 * sources a and b, as meant. It also skips lam = 0.5 exactly and lets a target of the sigmoid form
 * reach 2; we do neither. */
#include "methods/method.h"

/* 1 from `full` on, below it (l / full)^power: the share's weight. */
static bl_tensor share_weight(bl_tensor l, bl_tensor full, bl_tensor power)
{
    return bl_select(bl_ge(l, full), 1, bl_pow(bl_div(l, full), power));
}

#define DECOUPLED_MIXUP_CE(IN, OPT, OUT)                                                           \
    IN (logits,  "f32[B,C]", "grad, rows > 0",     "outputs for the mixed inputs")                 \
    IN (label_a, "i32[B]",   "0 <= . < C",         "class of source a")                            \
    IN (label_b, "i32[B]",   "0 <= . < C",         "class of source b")                            \
    IN (lam,     "f32[B]",   "0 <= . <= 1",        "share of source a")                            \
    OPT(eta,     0.1,        "[0,inf)",            "weight of the regularizer")                    \
    OPT(terms,   "both",     "both|a|b|less|more", "less: of the smaller share, split at thr")     \
    OPT(thr,     0.5,        "[0,1]",              "where less and more split")                    \
    OPT(lam_pow, 0.0,        "[0,inf)",            "exponent of the share as a weight")            \
    OPT(lam_thr, 1.0,        "(0,1]",              "share from which on the weight is 1")          \
    OPT(min_lam, 1e-3,       "[0,0.5)",            "both shares above this, or the row is plain")  \
    OUT(loss,    "f32[]",    "mce + eta dm")                                                       \
    OUT(mce,     "f32[]",    "mixup cross-entropy")                                                \
    OUT(dm,      "f32[]",    "decoupled regularizer, mean over all rows")

/* [B]: -log of e^z[own] over the sum of e^z[c] over all classes c but `other`. */
static bl_tensor without_the_other(bl_tensor logits, bl_tensor own, bl_tensor other)
{
    bl_tensor class = bl_iota(logits.graph, BL_I32, BL_SHAPE(1, bl_dim(logits, 1)), 1);
    bl_tensor rest  = bl_broadcast(bl_ne(class, bl_expand(other, 1)), bl_type_of(logits).shape);
    bl_tensor z_own = bl_squeeze(bl_take_along(logits, bl_expand(own, 1), 1), 1);
    return bl_sub(bl_masked_logsumexp(logits, rest, 1), z_own);
}

BL_CONTRACT(decoupled_mixup_ce, DECOUPLED_MIXUP_CE, "mixup cross-entropy and its regularizer")
{
    if (bl_dim(f->logits, 1) < 2) {
        bl_poison(graph, "logits have %lld class, expected at least 2",
                  (long long)bl_dim(f->logits, 1));
        return;
    }
    bl_tensor a = f->label_a, b = f->label_b, lam = bl_stop_gradient(f->lam);
    bl_tensor rest = bl_sub(1, lam), low = bl_lt(lam, f->thr);

    bl_tensor mixed = bl_and(bl_ne(a, b), bl_and(bl_gt(lam, f->min_lam), bl_gt(rest, f->min_lam)));
    bl_tensor of_a  = bl_is(f->terms, "less")   ? bl_and(mixed, low)
                      : bl_is(f->terms, "more") ? bl_and(mixed, bl_not(low))
                      : bl_is(f->terms, "b")    ? bl_and(mixed, false)
                                                : mixed;
    bl_tensor of_b  = bl_is(f->terms, "less")   ? bl_and(mixed, bl_not(low))
                      : bl_is(f->terms, "more") ? bl_and(mixed, low)
                      : bl_is(f->terms, "a")    ? bl_and(mixed, false)
                                                : mixed;

    bl_tensor Da = bl_mul(share_weight(lam, f->lam_thr, f->lam_pow),
                          without_the_other(f->logits, a, b));
    bl_tensor Db = bl_mul(share_weight(rest, f->lam_thr, f->lam_pow),
                          without_the_other(f->logits, b, a));

    f->mce  = bl_mean(bl_add(bl_mul(lam, bl_cross_entropy_rows(f->logits, a)),
                             bl_mul(rest, bl_cross_entropy_rows(f->logits, b))));
    f->dm   = bl_mean(bl_add(bl_select(of_a, Da, 0), bl_select(of_b, Db, 0)));
    f->loss = bl_add(f->mce, bl_mul(f->eta, f->dm));
}

#define DECOUPLED_MIXUP_BCE(IN, OPT, OUT)                                                          \
    IN (logits,    "f32[B,C]", "grad, rows > 0", "outputs for the mixed inputs")                   \
    IN (label_a,   "i32[B]",   "0 <= . < C",     "class of source a")                              \
    IN (label_b,   "i32[B]",   "0 <= . < C",     "class of source b")                              \
    IN (lam,       "f32[B]",   "0 <= . <= 1",    "share of source a")                              \
    OPT(power,     1.0,        "[0,inf)",        "exponent of the share as a target")              \
    OPT(xi,        0.8,        "(0,1]",          "share from which on the target is 1")            \
    OPT(rescale_a, 1,          "flag",           "rescale the share of a, or take it as it is")    \
    OPT(rescale_b, 1,          "flag",           "likewise b")                                     \
    OUT(loss,      "f32[]",    "sum over classes of the sigmoid cross-entropy, mean over rows")    \
    OUT(target,    "f32[B,C]", "two-hot, at most 1")

BL_CONTRACT(decoupled_mixup_bce, DECOUPLED_MIXUP_BCE, "the sigmoid form")
{
    bl_tensor lam = bl_stop_gradient(f->lam), rest = bl_sub(1, lam);
    bl_tensor ta  = f->rescale_a ? share_weight(lam, f->xi, f->power) : lam;
    bl_tensor tb  = f->rescale_b ? share_weight(rest, f->xi, f->power) : rest;
    int64_t C     = bl_dim(f->logits, 1);
    bl_tensor two = bl_add(bl_mul(bl_expand(ta, 1), bl_onehot(f->label_a, C, BL_F32)),
                           bl_mul(bl_expand(tb, 1), bl_onehot(f->label_b, C, BL_F32)));

    f->target = bl_min(two, 1);
    bl_tensor miss = bl_binary_cross_entropy(f->logits, f->target);
    f->loss = bl_mean(bl_sum(miss, 1));
}

#define DECOUPLED_MIXUP_MIX(IN, OPT, OUT)                                                          \
    IN (x,     "f32[B,S...]", "grad",             "inputs")                                        \
    IN (perm,  "i32[B]",      "0 <= . < B",       "source b of each row")                          \
    IN (lam,   "f32[B]",      "grad",             "share of the row itself, source a")             \
    OUT(x_mix, "f32[B,S...]", "lam x + (1 - lam) x[perm]")

BL_CONTRACT(decoupled_mixup_mix, DECOUPLED_MIXUP_MIX, "blends every input with another")
{
    bl_shape rows = bl_type_of(f->x).shape;
    for (int i = 1; i < rows.rank; i++)
        rows.dim[i] = 1;
    bl_tensor lam = bl_reshape(f->lam, rows);
    f->x_mix = bl_add(bl_mul(lam, f->x), bl_mul(bl_sub(1, lam), bl_take(f->x, f->perm)));
}

#define DECOUPLED_MIXUP_CUTMIX(IN, OPT, OUT)                                                       \
    IN (x,     "f32[B,H,W,C]", "grad",       "images")                                             \
    IN (perm,  "i32[B]",       "0 <= . < B", "source b of each row")                               \
    IN (box,   "i32[4]",       ">= 0",       "y0, y1, x0, x1, half-open, inside the image")        \
    OUT(x_mix, "f32[B,H,W,C]", "x, with the box taken from x[perm]")                               \
    OUT(lam,   "f32[B]",       "share of the row itself: 1 - area of the box / (H W)")

static bl_contract_check decoupled_mixup_cutmix_check;

BL_CONTRACT_CHECKED(decoupled_mixup_cutmix, DECOUPLED_MIXUP_CUTMIX, "pastes a box of another image",
                    decoupled_mixup_cutmix_check)
{
    int64_t B = bl_dim(f->x, 0), H = bl_dim(f->x, 1), W = bl_dim(f->x, 2);
    bl_tensor corner[4];
    for (int i = 0; i < 4; i++)
        corner[i] = bl_slice_axis(f->box, 0, i, i + 1);
    bl_shape pixels = BL_SHAPE(1, H, W, bl_dim(f->x, 3)); /* read along whole images */
    bl_tensor y = bl_iota(graph, BL_I32, pixels, 1), x = bl_iota(graph, BL_I32, pixels, 2);
    bl_tensor inside = bl_and(bl_and(bl_ge(y, corner[0]), bl_lt(y, corner[1])),
                              bl_and(bl_ge(x, corner[2]), bl_lt(x, corner[3])));
    bl_tensor area   = bl_mul(bl_sub(corner[1], corner[0]), bl_sub(corner[3], corner[2]));

    f->x_mix = bl_select(inside, bl_take(f->x, f->perm), f->x);
    f->lam   = bl_broadcast(bl_sub(1, bl_div(bl_cast(area, BL_F32), (double)(H * W))), BL_SHAPE(B));
}

static bl_status decoupled_mixup_cutmix_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *box = bl_dictionary_find(in, "box"), *x = bl_dictionary_find(in, "x");
    for (int axis = 0; axis < 2; axis++) {
        double low = bl_array_get(box, 2 * axis), high = bl_array_get(box, 2 * axis + 1);
        int64_t size = x->type.shape.dim[1 + axis];
        if (!(low <= high && high <= (double)size))
            return bl_fail(BL_INVALID,
                           "decoupled_mixup_cutmix: box has %s %g to %g, expected 0 <= first <= "
                           "last <= %lld",
                           axis ? "columns" : "rows", low, high, (long long)size);
    }
    return BL_OK;
}

#define DECOUPLED_MIXUP(OPT)                                                                       \
    OPT(mix,     "mixup", "mixup|cutmix",       "blend whole inputs, or paste boxes of images")    \
    OPT(alpha, 1.0, "(0,inf), tune [0.2,2] log", "the share is Beta(alpha, alpha), one a batch")   \
    OPT(eta,     0.1,     "[0,inf), tune [0.01,1] log", "weight of the regularizer")               \
    OPT(terms,   "both",  "both|a|b|less|more", "less: of the smaller share, split at thr")        \
    OPT(thr,     0.5,     "[0,1], tune never", "where less and more split")                        \
    OPT(lam_pow, 0.0,     "[0,inf)",            "exponent of the share as a weight")               \
    OPT(lam_thr, 1.0,     "(0,1], tune never",              "share from which on the weight is 1")
BL_ARM_OPTIONS(decoupled_mixup, DECOUPLED_MIXUP)

/* This step's partners and shares; the loss hook asks again and gets the same. */
typedef struct mixture {
    bl_tensor perm, lam;
    bl_tensor box; /* of cutmix */
} mixture;

static bl_tensor corner_of(bl_tensor centre, bl_tensor side, int64_t size, bool first)
{
    bl_tensor half = bl_div(side, 2);
    bl_tensor low = bl_sub(centre, half);
    return bl_clamp(first ? low : bl_add(low, side), 0, (double)size);
}

/* A box of share 1 - lam around a uniform centre, clipped to the image. */
static bl_tensor draw_box(bl_step *s, bl_tensor lam, int64_t H, int64_t W)
{
    bl_tensor part[4], edge = bl_sqrt(bl_sub(1, lam));
    bl_tensor u = bl_uniform(bl_step_key(s, "box"), BL_SHAPE(2));
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = axis ? W : H;
        bl_tensor side = bl_cast(bl_mul(edge, (double)size), BL_I32);
        bl_tensor place = bl_mul(bl_slice_axis(u, 0, axis, axis + 1), (double)size);
        bl_tensor centre = bl_cast(place, BL_I32);
        part[2 * axis]     = corner_of(centre, side, size, true);
        part[2 * axis + 1] = corner_of(centre, side, size, false);
    }
    return bl_concat(part, 4, 0);
}

static mixture draw_mixture(bl_step *s, const struct decoupled_mixup *o)
{
    mixture m = {.perm = bl_permutation(bl_step_key(s, "partner"), s->batch)};
    bl_tensor lam = bl_beta_symmetric(bl_step_key(s, "share"), o->alpha, BL_SHAPE(1));
    m.lam = bl_broadcast(lam, BL_SHAPE(s->batch));
    if (bl_is(o->mix, "mixup"))
        return m;
    if (bl_rank(s->inputs) != 4) {
        m.box = m.lam = bl_poison(s->graph, "decoupled_mixup: cutmix needs images, [B,H,W,C]; the "
                                            "inputs have %d axes", bl_rank(s->inputs));
        return m;
    }
    int64_t H = bl_dim(s->inputs, 1), W = bl_dim(s->inputs, 2);
    m.box = draw_box(s, lam, H, W);
    bl_tensor end[4];
    for (int i = 0; i < 4; i++)
        end[i] = bl_cast(bl_slice_axis(m.box, 0, i, i + 1), BL_F32);
    bl_tensor area = bl_mul(bl_sub(end[1], end[0]), bl_sub(end[3], end[2]));
    m.lam = bl_broadcast(bl_sub(1, bl_div(area, (double)(H * W))), BL_SHAPE(s->batch));
    return m;
}

static void mix_batch(bl_step *s, const void *options)
{
    const struct decoupled_mixup *o = options;
    mixture m = draw_mixture(s, o);
    bl_tensor own = bl_target_distributions(s);
    if (bl_is(o->mix, "mixup")) {
        struct decoupled_mixup_mix f = {.x = s->inputs, .perm = m.perm, .lam = m.lam};
        bl_call(decoupled_mixup_mix, &f);
        s->inputs = f.x_mix;
    } else {
        struct decoupled_mixup_cutmix f = {.x = s->inputs, .perm = m.perm, .box = m.box};
        bl_call(decoupled_mixup_cutmix, &f);
        s->inputs = f.x_mix;
    }
    bl_tensor lam = bl_expand(m.lam, 1);
    s->targets = bl_add(bl_mul(lam, own), bl_mul(bl_sub(1, lam), bl_take(own, m.perm)));
    s->target_form = BL_DISTRIBUTIONS;
}

/* The task's loss of the mixed targets is mce. */
static void add_regularizer(bl_step *s, const void *options)
{
    const struct decoupled_mixup *o = options;
    mixture m = draw_mixture(s, o);
    struct decoupled_mixup_ce f = BL_DEFAULTS(decoupled_mixup_ce);
    f.eta = o->eta, f.terms = o->terms, f.thr = o->thr;
    f.lam_pow = o->lam_pow, f.lam_thr = o->lam_thr;
    f.logits = s->logits, f.lam = m.lam;
    f.label_a = s->labels, f.label_b = bl_take(s->labels, m.perm);
    bl_call(decoupled_mixup_ce, &f);
    s->loss = bl_add(s->loss, bl_mul(o->eta, f.dm));
    bl_measure(s, "decoupled loss", f.dm);
}

static const bl_hooks decoupled_mixup_hooks = {.batch = mix_batch, .loss = add_regularizer};

const bl_method bl_decoupled_mixup = {
    .slug = "decoupled_mixup",
    .family = "inputs",
    .paper = "Liu et al. 2023, arXiv 2203.10761",
    .summary = "mixup or cutmix whose two classes do not compete",
    .when = "Wherever mixup or cutmix is used on classes; it costs no extra pass.",
    .functions = {&decoupled_mixup_ce_contract, &decoupled_mixup_bce_contract,
                  &decoupled_mixup_mix_contract, &decoupled_mixup_cutmix_contract},
    .options = &decoupled_mixup_contract,
    .example = "--arm \"decoupled_mixup(mix=cutmix,alpha=1)\"",
    .traits = BL_CLASSIFICATION | BL_HARD_LABELS | BL_SOFTENS_LABELS,
    .hooks = &decoupled_mixup_hooks,
};
