/* Proximal maps: exact zeros. The optimiser steps on the loss alone, then each weight (or group) is
 * shrunk by what its penalty would take, and stops at zero. */
#include "methods/classical/baselines/weights.h"

#define BASE_PROX_ELASTIC(IN, OPT, OUT)                                                            \
    IN(w, "f32[S...]", "", "weights after the optimiser's step")                                   \
    OPT(lr, BL_REQUIRED, "[0,inf)", "learning rate of that step")                                  \
    OPT(lam1, BL_REQUIRED, "[0,inf)", "weight of the sum of absolute values")                      \
    OPT(lam2, BL_REQUIRED, "[0,inf)", "weight of half the sum of squares")                         \
    OUT(w_new, "f32[S...]", "sign(w) max(|w| - lr lam1, 0) / (1 + lr lam2)")

BL_CONTRACT(base_prox_elastic, BASE_PROX_ELASTIC, "the proximal map of the elastic net")
{
    bl_tensor shrunk = bl_max(bl_sub(bl_abs(f->w), bl_mul(f->lr, f->lam1)), 0);
    f->w_new = bl_div(bl_mul(bl_sign(f->w), shrunk), bl_add(1, bl_mul(f->lr, f->lam2)));
}

/* The share of weights, or groups, that are exactly zero, over all layers. */
static void measure_zeros(bl_step *s, const char *name, bl_tensor zeros, double of)
{
    if (of > 0)
        bl_measure(s, name, bl_div(zeros, of));
}

static bl_tensor count_zeros(bl_tensor x)
{
    return bl_sum(bl_cast(bl_eq(x, 0), BL_F32));
}

#define L1_PROX(OPT)                                                                               \
    OPT(lam, 1e-4, "[0,inf), tune [1e-6,1e-3] log", "weight of the sum of absolute values")

BL_ARM_OPTIONS(l1_prox, L1_PROX)

static void l1_prox_update(bl_step *s, const void *options)
{
    const struct l1_prox *o = options;
    bl_tensor zeros = bl_number(0);
    double weights = 0;
    for (int i = 0; i < s->parameters; i++) {
        if (!is_weight(s, i))
            continue;
        struct base_prox_elastic f = {
            .w = s->updated[i], .lr = s->learning_rate, .lam1 = o->lam, .lam2 = bl_number(0)};
        bl_call(base_prox_elastic, &f);
        s->updated[i] = f.w_new;
        zeros = bl_add(zeros, count_zeros(f.w_new));
        weights += (double)bl_type_count(s->parameter[i].type);
    }
    measure_zeros(s, "zeros", zeros, weights);
}

const bl_method bl_l1_prox = {
    .slug = "l1_prox",
    .family = "classical",
    .paper = "Daubechies et al. 2004; Tibshirani 1996",
    .summary = "sets small weights to exactly zero after every step",
    .when = "When the network should be sparse. The share of zeros is reported; with momentum or "
            "Adam the threshold is still learning rate times lam. Costs next to nothing.",
    .functions = {&base_prox_elastic_contract},
    .options = &l1_prox_contract,
    .example = "--arm \"l1_prox(lam=0.001)\"",
    .hooks = &(const bl_hooks){.update = l1_prox_update},
};

#define BASE_PROX_GROUP(IN, OPT, OUT)                                                              \
    IN(w, "f32[G,P]", "", "weights after the optimiser's step, one group in each row")             \
    OPT(lr, BL_REQUIRED, "[0,inf)", "learning rate of that step")                                  \
    OPT(lam, 1e-4, "[0,inf)", "weight of the penalty")                                             \
    OPT(size_weighted, 1, "flag", "multiply by sqrt(P), so that large groups pay more")            \
    OUT(w_new, "f32[G,P]", "w_g max(0, 1 - lr lam k / |w_g|); a zero group stays zero")

BL_CONTRACT(base_prox_group, BASE_PROX_GROUP, "the proximal map of the group lasso")
{
    double k = f->size_weighted ? sqrt((double)bl_dim(f->w, 1)) : 1;
    bl_tensor length = bl_norm_keep(f->w, 1), some = bl_gt(length, 0);
    bl_tensor taken = bl_div(bl_mul(bl_mul(f->lr, f->lam), k), bl_select(some, length, 1));
    f->w_new = bl_mul(f->w, bl_select(some, bl_max(bl_sub(1, taken), 0), 0));
}

#define GROUP_PROX(OPT)                                                                            \
    OPT(lam, 1e-4, "[0,inf), tune [1e-5,1e-2] log", "weight of the penalty")                       \
    OPT(size_weighted, 1, "flag", "multiply by the square root of a group's size")

BL_ARM_OPTIONS(group_prox, GROUP_PROX)

static void group_prox_update(bl_step *s, const void *options)
{
    const struct group_prox *o = options;
    bl_tensor zeros = bl_number(0);
    double groups = 0;
    for (int i = 0; i < s->parameters; i++) {
        if (!is_hidden_weight(s, i))
            continue;
        struct base_prox_group f = {.w = as_rows(s->updated[i]),
                                    .lr = s->learning_rate,
                                    .lam = o->lam,
                                    .size_weighted = o->size_weighted};
        bl_call(base_prox_group, &f);
        s->updated[i] = from_rows(f.w_new, s->updated[i]);
        zeros = bl_add(zeros, count_zeros(bl_reduce_max(bl_abs(f.w_new), 1)));
        groups += (double)bl_dim(f.w_new, 0);
    }
    measure_zeros(s, "zero_units", zeros, groups);
}

const bl_method bl_group_prox = {
    .slug = "group_prox",
    .family = "classical",
    .paper = "Yuan and Lin 2006; Scardapane et al. 2017, arXiv 1607.00485",
    .summary = "removes whole units and channels",
    .when =
        "When the network should become narrower. Acts on the hidden layers; the share of units "
        "removed is reported. Costs next to nothing.",
    .functions = {&base_prox_group_contract},
    .options = &group_prox_contract,
    .example = "--arm \"group_prox(lam=0.001)\"",
    .hooks = &(const bl_hooks){.update = group_prox_update},
};
