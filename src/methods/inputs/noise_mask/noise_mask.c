/* Policy gradient-driven noise mask. Yavuz and Yang 2024, arXiv 2406.14568. A policy network looks
 * at an image and gives, for every cell of a coarse grid, the two parameters of a Beta
 * distribution; a mask drawn from it multiplies the image. The classifier learns on masked images,
 * the policy by its cross-entropy as cost; then the policy is thrown away and the classifier tuned
 * on clean images.
 *
 * Densities are computed in double: near 0 and 1, and at large parameters, their terms cancel. */
#include "methods/method.h"

#define NOISE_MASK_CONCENTRATION(IN, OPT, OUT)                                                     \
    IN(head_a, "f32[B,G]", "grad, rows > 0", "outputs of the policy's first head")                 \
    IN(head_b, "f32[B,G]", "grad", "of its second head")                                           \
    IN(base_a, "f32[1,G]", "", "running mean of head_a")                                           \
    IN(base_b, "f32[1,G]", "", "of head_b")                                                        \
    OPT(decay, 0.9, "[0,1]", "share of the running mean in this batch")                            \
    OPT(ema, 0.99, "[0,1]", "share of it that is kept")                                            \
    OUT(conc_a, "f32[B,G]", "exp(decay base_a + (1-decay) head_a)")                                \
    OUT(conc_b, "f32[B,G]", "likewise")                                                            \
    OUT(new_base_a, "f32[1,G]", "ema base_a + (1-ema) mean of head_a, no gradient")                \
    OUT(new_base_b, "f32[1,G]", "likewise")

/* share base + (1 - share) head */
static bl_tensor average(bl_tensor share, bl_tensor base, bl_tensor head)
{
    return bl_add(bl_mul(share, bl_stop_gradient(base)), bl_mul(bl_sub(1, share), head));
}

static bl_contract_check noise_mask_concentration_check;

BL_CONTRACT_CHECKED(noise_mask_concentration, NOISE_MASK_CONCENTRATION,
                    "parameters of the mask's Beta distributions", noise_mask_concentration_check)
{
    f->conc_a = bl_exp(average(f->decay, f->base_a, f->head_a));
    f->conc_b = bl_exp(average(f->decay, f->base_b, f->head_b));
    f->new_base_a = bl_stop_gradient(average(f->ema, f->base_a, bl_mean_keep(f->head_a, 0)));
    f->new_base_b = bl_stop_gradient(average(f->ema, f->base_b, bl_mean_keep(f->head_b, 0)));
}

static bl_status noise_mask_concentration_check(const bl_dictionary *in, const void *options)
{
    static const char *const pair[][2] = {{"head_a", "base_a"}, {"head_b", "base_b"}};
    double decay = ((const struct noise_mask_concentration *)options)->decay.number;
    for (int p = 0; p < 2; p++) {
        const bl_array *head = bl_dictionary_find(in, pair[p][0]);
        const bl_array *base = bl_dictionary_find(in, pair[p][1]);
        int64_t cells = base->type.shape.dim[1], count = bl_array_count(head);
        for (int64_t i = 0; i < count; i++) {
            double log_conc = decay * bl_array_get(base, i % cells);
            log_conc += (1 - decay) * bl_array_get(head, i);
            if (fabs(log_conc) > 80)
                return bl_fail(BL_INVALID,
                               "%s[%lld,%lld] and %s give a concentration of exp(%g), expected "
                               "exp(-80) to exp(80)",
                               pair[p][0], (long long)(i / cells), (long long)(i % cells),
                               pair[p][1], log_conc);
        }
    }
    return BL_OK;
}

#define NOISE_MASK_RENDER(IN, OPT, OUT)                                                            \
    IN(mask, "f32[B,G]", "grad", "a value for each cell of the grid, row by row")                  \
    IN(image, "f32[B,H,W,C]", "grad", "normalised images: a mask of 0 is the mean, not black")     \
    OPT(grid, 64, ">= 1", "cells along each side; G = grid^2")                                     \
    OPT(kernel, 13, ">= 1, odd", "width of the blur in pixels, 1 for none")                        \
    OPT(sigma, 6.0, "(0,inf)", "of the blur; not scheduled")                                       \
    OUT(masked, "f32[B,H,W,C]", "image full")                                                      \
    OUT(full, "f32[B,H,W,1]", "the mask at the image's size, blurred")

struct noise_mask_render;
/* Sets the error of the graph if so. */
static bool cannot_render(bl_graph *graph, const struct noise_mask_render *f);

BL_CONTRACT(noise_mask_render, NOISE_MASK_RENDER, "multiplies images by masks of coarse cells")
{
    if (cannot_render(graph, f))
        return;
    bl_tensor cells = bl_reshape(f->mask, BL_SHAPE(bl_dim(f->mask, 0), f->grid, f->grid, 1));
    bl_tensor up = bl_resize_nearest(cells, bl_dim(f->image, 1), bl_dim(f->image, 2));
    f->full = f->kernel > 1 ? bl_gaussian_blur(up, f->sigma.number, f->kernel / 2, true) : up;
    f->masked = bl_mul(f->image, f->full);
}

static bool cannot_render(bl_graph *graph, const struct noise_mask_render *f)
{
    int64_t cells = bl_dim(f->mask, 1), height = bl_dim(f->image, 1), width = bl_dim(f->image, 2);
    int64_t shorter = height < width ? height : width;
    if (f->grid > cells || f->grid * f->grid != cells) {
        bl_poison(graph, "mask has %lld cells, expected grid^2 with a grid of %lld",
                  (long long)cells, (long long)f->grid);
        return true;
    }
    if (f->kernel / 2 >= shorter) {
        bl_poison(graph,
                  "option kernel is %lld, but half of it must be less than the image's "
                  "shorter side, %lld",
                  (long long)f->kernel, (long long)shorter);
        return true;
    }
    if (!bl_is_number(f->sigma)) {
        bl_poison(graph, "sigma must be a number, not scheduled");
        return true;
    }
    return false;
}

#define NOISE_MASK_OBJECTIVE(IN, OPT, OUT)                                                         \
    IN(conc_a, "f32[B,G]", "grad, > 0, rows > 0", "first parameters")                              \
    IN(conc_b, "f32[B,G]", "grad, > 0", "second parameters")                                       \
    IN(mask, "f32[B,G]", "[0,1]", "drawn from Beta(conc_a, conc_b); a sample has no gradient")     \
    IN(ce, "f32[B]", "grad", "cross-entropy of each masked image")                                 \
    OPT(form, "official", "official|per_sample|reinforce", "how density and cost are combined")    \
    OPT(baseline, 0.0, "finite", "subtracted from the cost by reinforce")                          \
    OPT(clamp, 1e-6, "(0,0.5)", "the mask is kept this far from 0 and 1")                          \
    OUT(loss, "f32[]",                                                                             \
        "mean lse mean ce, mean lse ce, or mean ce + mean logp_sum (ce - baseline)")               \
    OUT(lse, "f32[B]", "log of the sum of the cells' densities")                                   \
    OUT(logp_sum, "f32[B]", "log density of the whole mask")

/* (a-1) log m + (b-1) log(1-m) - log B(a,b) */
static bl_tensor beta_log_density(bl_tensor m, bl_tensor a, bl_tensor b)
{
    bl_tensor log_beta = bl_sub(bl_add(bl_lgamma(a), bl_lgamma(b)), bl_lgamma(bl_add(a, b)));
    bl_tensor of_a = bl_mul(bl_sub(a, 1), bl_log(m));
    bl_tensor of_b = bl_mul(bl_sub(b, 1), bl_log1p(bl_neg(m)));
    return bl_sub(bl_add(of_a, of_b), log_beta);
}

BL_CONTRACT(noise_mask_objective, NOISE_MASK_OBJECTIVE, "what classifier and policy minimise")
{
    bl_tensor near = bl_cast(f->clamp, BL_F64), ce = bl_cast(f->ce, BL_F64);
    bl_tensor m = bl_clamp(bl_stop_gradient(bl_cast(f->mask, BL_F64)), near, bl_sub(1, near));
    bl_tensor lp = beta_log_density(m, bl_cast(f->conc_a, BL_F64), bl_cast(f->conc_b, BL_F64));
    bl_tensor lse = bl_logsumexp(lp, 1), logp_sum = bl_sum(lp, 1), loss;
    if (bl_is(f->form, "official")) {
        loss = bl_mul(bl_mean(lse), bl_mean(ce));
    } else if (bl_is(f->form, "per_sample")) {
        loss = bl_mean(bl_mul(lse, ce));
    } else {
        bl_tensor cost = bl_sub(bl_stop_gradient(ce), bl_cast(f->baseline, BL_F64));
        loss = bl_add(bl_mean(ce), bl_mean(bl_mul(logp_sum, cost)));
    }
    f->loss = bl_cast(loss, BL_F32);
    f->lse = bl_cast(lse, BL_F32);
    f->logp_sum = bl_cast(logp_sum, BL_F32);
}

#define NOISE_MASK_BETA_MOMENTS(IN, OPT, OUT)                                                      \
    IN(conc_a, "f32[S...]", "grad, > 0", "first parameters, a")                                    \
    IN(conc_b, "f32[S...]", "grad, > 0", "second parameters, b")                                   \
    OUT(mean, "f32[S...]", "a / (a+b)")                                                            \
    OUT(var, "f32[S...]", "a b / ((a+b)^2 (a+b+1))")

BL_CONTRACT(noise_mask_beta_moments, NOISE_MASK_BETA_MOMENTS, "mean and variance of the mask")
{
    bl_tensor total = bl_add(f->conc_a, f->conc_b);
    f->mean = bl_div(f->conc_a, total);
    f->var = bl_div(bl_mul(f->mean, bl_div(f->conc_b, total)), bl_add(total, 1));
}

const bl_method bl_noise_mask = {
    .slug = "noise_mask",
    .family = "inputs",
    .paper = "Yavuz and Yang 2024, arXiv 2406.14568",
    .summary = "(no arm) pretrains on images multiplied by masks that a policy network draws",
    .when = "Heterogeneous image sets where noise augmentation fights with other regularisers. A "
            "policy network beside the classifier, and a second stage on clean images.",
    .functions = {&noise_mask_objective_contract, &noise_mask_concentration_contract,
                  &noise_mask_render_contract, &noise_mask_beta_moments_contract},
    .example = "ballast show noise_mask_objective",
};
