/* ProFusion. Zhou, Zhang, Sun and Xu 2023, arXiv 2305.13579. A word S* learned for one subject
 * drowns the rest C of the prompt, unless it is regularised, which costs detail. ProFusion does not
 * regularise it and repairs the sampler: at each noise level the sample is first given fresh noise
 * under the joint condition [S*, C] (fusion), then denoised with guidance for S* and for C apart
 * (refinement).
 *
 * a_t and a_prev are the cumulative alphas of a step and of the next, less noisy one. */
#include "methods/method.h"

/* a[B] with x's rank, to be broadcast along all axes but the first. */
static bl_tensor for_each_row(bl_tensor a, bl_tensor x)
{
    bl_shape shape = {.rank = bl_rank(x), .dim = {bl_dim(a, 0)}};
    for (int axis = 1; axis < shape.rank; axis++)
        shape.dim[axis] = 1;
    return bl_reshape(a, shape);
}

#define PROFUSION_ADD_NOISE(IN, OPT, OUT)                                                          \
    IN(x0, "f32[B,S...]", "grad", "clean samples")                                                 \
    IN(noise, "f32[B,S...]", "", "standard normal")                                                \
    IN(t, "i32[B]", "0 <= . < T", "noise level of each")                                           \
    IN(alphas_cumprod, "f32[T]", "", "cumulative alpha of each level")                             \
    OUT(x_t, "f32[B,S...]", "sqrt(A) x0 + sqrt(1 - A) noise, A = alphas_cumprod[t]")

BL_CONTRACT(profusion_add_noise, PROFUSION_ADD_NOISE, "noisy samples to train a denoiser on")
{
    bl_tensor A = for_each_row(bl_take(f->alphas_cumprod, f->t), f->x0);
    f->x_t = bl_add(bl_mul(bl_sqrt(A), f->x0), bl_mul(bl_sqrt(bl_sub(1, A)), f->noise));
}

#define PROFUSION_DENOISE_LOSS(IN, OPT, OUT)                                                       \
    IN(eps_pred, "f32[B,S...]", "grad, rows > 0", "predicted noise")                               \
    IN(eps, "f32[B,S...]", "", "the noise")                                                        \
    IN(prompt, "f32[B,L,D]", "grad", "S*, the learned words")                                      \
    IN(alpha_bar, "f32[B]", "", "cumulative alpha of each sample")                                 \
    OPT(prompt_l2, 0.0, "[0,inf)", "weight of prompt_reg; the method is to leave it 0")            \
    OPT(p_gamma, 0.0, "finite", "power of 1 - alpha_bar by which samples are weighed")             \
    OUT(loss, "f32[]", "diffusion + prompt_l2 prompt_reg")                                         \
    OUT(diffusion, "f32[]", "mean over samples of (1 - alpha_bar)^p_gamma times the mean square")  \
    OUT(prompt_reg, "f32[]", "mean square of prompt")

BL_CONTRACT(profusion_denoise_loss, PROFUSION_DENOISE_LOSS, "what trains the encoder of S*")
{
    int64_t rows = bl_dim(f->eps_pred, 0), count = bl_shape_count(bl_type_of(f->eps_pred).shape);
    bl_tensor square = bl_square(bl_sub(f->eps_pred, bl_stop_gradient(f->eps)));
    bl_tensor per_sample = bl_mean(bl_reshape(square, BL_SHAPE(rows, count / rows)), 1);
    bl_tensor weight = bl_pow(bl_sub(1, bl_stop_gradient(f->alpha_bar)), f->p_gamma);

    f->diffusion = bl_mean(bl_mul(weight, per_sample));
    f->prompt_reg = bl_mean(bl_square(f->prompt));
    f->loss = bl_add(f->diffusion, bl_mul(f->prompt_l2, f->prompt_reg));
}

#define PROFUSION_SCALE_TOKEN(IN, OPT, OUT)                                                        \
    IN(hidden, "f32[B,L,D]", "grad", "output of the text encoder")                                 \
    OPT(pos, BL_REQUIRED_INTEGER, ">= 0", "first position of S*")                                  \
    OPT(count, 1, ">= 0", "how many positions it has")                                             \
    OPT(gamma, 0.8, "[0,inf)", "factor of these; 1 leaves them alone")                             \
    OUT(hidden_out, "f32[B,L,D]", "rows pos .. pos + count - 1 times gamma")

BL_CONTRACT(profusion_scale_token, PROFUSION_SCALE_TOKEN, "tones S* down, for fusion passes")
{
    int64_t L = bl_dim(f->hidden, 1);
    if (f->pos >= L || f->count > L - f->pos) {
        bl_poison(
            graph,
            "options pos and count are %lld and %lld, expected positions within 0 <= . < %lld",
            (long long)f->pos, (long long)f->count, (long long)L);
        return;
    }
    bl_tensor position = bl_iota(graph, BL_I32, BL_SHAPE(bl_dim(f->hidden, 0), L, 1), 1);
    bl_tensor scaled =
        bl_and(bl_ge(position, (double)f->pos), bl_lt(position, (double)(f->pos + f->count)));
    f->hidden_out = bl_mul(bl_select(scaled, f->gamma, 1), f->hidden);
}

/* --- the moves of the sampler ----------------------------------------------------------------- */

#define PROFUSION_COMPOSE_EPS(IN, OPT, OUT)                                                        \
    IN(eps_uncond, "f32[B,S...]", "grad", "noise predicted without a condition")                   \
    IN(eps_cond, "f32[K,B,S...]", "grad", "under each condition")                                  \
    IN(weight, "f32[K]", "", "of each; 1 alone is the plain prediction")                           \
    OUT(eps, "f32[B,S...]", "eps_uncond + sum of weight (eps_cond - eps_uncond)")

BL_CONTRACT(profusion_compose_eps, PROFUSION_COMPOSE_EPS, "guidance by several conditions")
{
    bl_tensor way = bl_sub(f->eps_cond, bl_expand(f->eps_uncond, 0));
    f->eps = bl_add(f->eps_uncond, bl_sum(bl_mul(for_each_row(f->weight, way), way), 0));
}

/* What fresh noise replaces in a step of full eta, q = (1 - a_t/a_prev) / (1 - a_t): then sigma^2
 * is eta^2 (1 - a_prev) q, and q is in [0,1]. Nothing is replaced where there is no noise. */
static bl_tensor share_replaced(bl_tensor a_t, bl_tensor a_prev)
{
    bl_tensor whole = bl_mul(a_prev, bl_sub(1, a_t)), any = bl_gt(whole, 0);
    bl_tensor share = bl_div(bl_sub(a_prev, a_t), bl_select(any, whole, 1));
    return bl_select(any, bl_min(share, 1), 0);
}

/* x - eps sigma^2 sqrt(1-a_t)/(1-a_prev) + noise sigma sqrt((1-a_t)(2-2a_prev-sigma^2))/(1-a_prev),
 * in which 1 - a_prev cancels. */
static bl_tensor fusion_step(bl_tensor x, bl_tensor eps, bl_tensor noise, bl_tensor a_t,
                             bl_tensor a_prev, bl_tensor eta)
{
    bl_tensor q = bl_mul(bl_square(eta), share_replaced(a_t, a_prev));
    q = bl_select(bl_lt(bl_sub(1, a_prev), 1e-12), 0, q); /* clean, and stays as it is */
    bl_tensor level = bl_sub(1, a_t);
    bl_tensor removed = bl_mul(bl_mul(q, bl_sqrt(level)), eps);
    bl_tensor added = bl_mul(bl_sqrt(bl_mul(bl_mul(q, level), bl_sub(2, q))), noise);
    return bl_add(bl_sub(x, removed), added);
}

static bl_tensor ddim_step(bl_tensor x, bl_tensor eps, bl_tensor noise, bl_tensor a_t,
                           bl_tensor a_prev, bl_tensor eta, bl_tensor *x0)
{
    bl_tensor q = bl_mul(bl_square(eta), share_replaced(a_t, a_prev)), level = bl_sub(1, a_prev);
    *x0 = bl_div(bl_sub(x, bl_mul(bl_sqrt(bl_sub(1, a_t)), eps)), bl_sqrt(a_t));
    bl_tensor kept = bl_mul(bl_sqrt(bl_mul(level, bl_sub(1, q))), eps);
    bl_tensor fresh = bl_mul(bl_sqrt(bl_mul(level, q)), noise);
    return bl_add(bl_mul(bl_sqrt(a_prev), *x0), bl_add(kept, fresh));
}

static bl_status check_levels(const bl_dictionary *in, const void *options)
{
    (void)options;
    double a_t = bl_array_get(bl_dictionary_find(in, "a_t"), 0);
    double a_prev = bl_array_get(bl_dictionary_find(in, "a_prev"), 0);
    if (a_t > a_prev)
        return bl_fail(BL_INVALID,
                       "a_t is %.9g, expected at most a_prev, %.9g: the next level has less noise",
                       a_t, a_prev);
    return BL_OK;
}

#define PROFUSION_FUSION_STEP(IN, OPT, OUT)                                                        \
    IN(x, "f32[B,S...]", "grad", "samples at level t")                                             \
    IN(eps, "f32[B,S...]", "grad", "their predicted noise, under the joint condition")             \
    IN(noise, "f32[B,S...]", "", "standard normal, fresh")                                         \
    IN(a_t, "f32[]", "(0,1]", "cumulative alpha of this level")                                    \
    IN(a_prev, "f32[]", "(0,1]", "of the next, less noisy one")                                    \
    OPT(eta, 1.0, "[0,1]", "share of what a full step replaces")                                   \
    OUT(x_out, "f32[B,S...]", "samples at the same level, partly renewed")

BL_CONTRACT_CHECKED(profusion_fusion_step, PROFUSION_FUSION_STEP,
                    "a denoising step and the noising back from it, in one", check_levels)
{
    f->x_out = fusion_step(f->x, f->eps, f->noise, f->a_t, f->a_prev, f->eta);
}

#define PROFUSION_DDIM_STEP(IN, OPT, OUT)                                                          \
    IN(x, "f32[B,S...]", "grad", "samples at level t")                                             \
    IN(eps, "f32[B,S...]", "grad", "their predicted noise")                                        \
    IN(noise, "f32[B,S...]", "", "standard normal, fresh; unused where eta is 0")                  \
    IN(a_t, "f32[]", "(0,1]", "cumulative alpha of this level")                                    \
    IN(a_prev, "f32[]", "(0,1]", "of the next, less noisy one")                                    \
    OPT(eta, 0.0, "[0,1]", "0: deterministic; 1: as much fresh noise as DDPM")                     \
    OUT(x_prev, "f32[B,S...]", "samples at the next level")                                        \
    OUT(x0, "f32[B,S...]", "the clean samples that eps implies, not clipped")

BL_CONTRACT_CHECKED(profusion_ddim_step, PROFUSION_DDIM_STEP, "a denoising step (Song et al. 2021)",
                    check_levels)
{
    f->x_prev = ddim_step(f->x, f->eps, f->noise, f->a_t, f->a_prev, f->eta, &f->x0);
}

/* --- a mixture of Gaussians, whose noise is known exactly ------------------------------------- */

/* x[B,D], means[K,D], pi[K]: the mean noise in x where clean samples are drawn from
 * sum_k pi_k N(means_k, std^2), [B,D]. */
static bl_tensor mixture_noise(bl_tensor x, bl_tensor a_t, bl_tensor means, bl_tensor pi,
                               bl_tensor std)
{
    bl_tensor level = bl_sub(1, a_t), v = bl_add(bl_mul(a_t, bl_square(std)), level);
    bl_tensor d = bl_sub(bl_expand(x, 1), bl_mul(bl_sqrt(a_t), means)); /* [B,K,D] */
    bl_tensor far = bl_div(bl_sum(bl_square(d), -1), bl_mul(2, v));
    bl_tensor r = bl_softmax(bl_sub(bl_log(pi), far), -1);
    bl_tensor way = bl_sum(bl_mul(bl_expand(r, 2), d), 1);
    return bl_mul(bl_div(bl_sqrt(level), v), way);
}

#define PROFUSION_GMM_EPS(IN, OPT, OUT)                                                            \
    IN(x, "f32[B,D]", "grad", "noisy samples")                                                     \
    IN(a_t, "f32[]", "(0,1]", "their cumulative alpha")                                            \
    IN(means, "f32[K,D]", "rows > 0", "of the components")                                         \
    IN(pi, "f32[K]", "> 0, sums to 1 within 1e-3", "their weights")                                \
    OPT(std, BL_REQUIRED, "(0,inf)", "their standard deviation")                                   \
    OUT(eps, "f32[B,D]", "the best prediction of the noise in x")

BL_CONTRACT(profusion_gmm_eps, PROFUSION_GMM_EPS, "a denoiser that is exact")
{
    f->eps = mixture_noise(f->x, f->a_t, f->means, f->pi, f->std);
}

#define PROFUSION_SAMPLE_GMM(IN, OPT, OUT)                                                         \
    IN(x_start, "f32[B,D]", "", "noise to begin with")                                             \
    IN(noise, "f32[N,M,B,D]", "", "standard normal; fusion move j of step i uses [i,j]")           \
    IN(alphas, "f32[A]", "(0,1]", "cumulative alphas, noisiest first, N + 1")                      \
    IN(means, "f32[K,D]", "rows > 0", "of the components")                                         \
    IN(pi_uncond, "f32[K]", "> 0, sums to 1 within 1e-3", "their weights without a condition")     \
    IN(pi_subject, "f32[K]", "> 0, sums to 1 within 1e-3", "under S*")                             \
    IN(pi_text, "f32[K]", "> 0, sums to 1 within 1e-3", "under C")                                 \
    IN(pi_joint, "f32[K]", "> 0, sums to 1 within 1e-3", "under [S*, C]")                          \
    OPT(std, BL_REQUIRED, "(0,inf)", "their standard deviation")                                   \
    OPT(fusion_steps, 1, ">= 0", "at most M: fusion moves in a step; 0: refinement only")          \
    OPT(eta_fusion, 1.0, "[0,1]", "of a fusion move")                                              \
    OPT(guidance_fusion, 3.0, "finite", "weight of the joint condition in it")                     \
    OPT(w_subject, 3.0, "finite", "weight of S* in refinement")                                    \
    OPT(w_text, 3.0, "finite", "weight of C")                                                      \
    OUT(x_final, "f32[B,D]", "samples")

struct profusion_sample_gmm;
static bl_contract_check profusion_sample_gmm_check;

/* In double: errors grow along the chain. */
typedef struct chain {
    bl_tensor means, uncond, subject, text, joint, std;
    bl_tensor eta_fusion, guidance_fusion, w_subject, w_text;
    int64_t fusion_steps;
} chain;

static chain in_double(const struct profusion_sample_gmm *f);
static bl_scan_body sampling_step;

BL_CONTRACT_CHECKED(profusion_sample_gmm, PROFUSION_SAMPLE_GMM,
                    "fusion sampling with the exact denoiser", profusion_sample_gmm_check)
{
    int64_t N = bl_dim(f->noise, 0);
    if (bl_dim(f->alphas, 0) != N + 1) {
        bl_poison(graph, "alphas has %lld values, expected %lld: one more than noise has steps",
                  (long long)bl_dim(f->alphas, 0), (long long)(N + 1));
        return;
    }
    if (f->fusion_steps > bl_dim(f->noise, 1)) {
        bl_poison(graph, "option fusion_steps is %lld, expected at most %lld, those noise is for",
                  (long long)f->fusion_steps, (long long)bl_dim(f->noise, 1));
        return;
    }
    chain c = in_double(f);
    bl_tensor a = bl_cast(f->alphas, BL_F64), start = bl_cast(f->x_start, BL_F64), end;
    bl_tensor row[] = {bl_cast(f->noise, BL_F64), bl_slice_axis(a, 0, 0, N),
                       bl_slice_axis(a, 0, 1, N + 1)};
    bl_scan(graph, N, sampling_step, &c, &start, 1, row, 3, &end, NULL, 0);
    f->x_final = bl_cast(end, BL_F32);
}

static chain in_double(const struct profusion_sample_gmm *f)
{
    return (chain){.means = bl_cast(f->means, BL_F64),
                   .uncond = bl_cast(f->pi_uncond, BL_F64),
                   .subject = bl_cast(f->pi_subject, BL_F64),
                   .text = bl_cast(f->pi_text, BL_F64),
                   .joint = bl_cast(f->pi_joint, BL_F64),
                   .std = bl_cast(f->std, BL_F64),
                   .eta_fusion = bl_cast(f->eta_fusion, BL_F64),
                   .guidance_fusion = bl_cast(f->guidance_fusion, BL_F64),
                   .w_subject = bl_cast(f->w_subject, BL_F64),
                   .w_text = bl_cast(f->w_text, BL_F64),
                   .fusion_steps = f->fusion_steps};
}

static bl_tensor towards(bl_tensor uncond, bl_tensor weight, bl_tensor cond)
{
    return bl_mul(weight, bl_sub(cond, uncond));
}

static bl_tensor fusion_move(const chain *c, bl_tensor x, bl_tensor noise, bl_tensor a_t,
                             bl_tensor a_prev)
{
    bl_tensor uncond = mixture_noise(x, a_t, c->means, c->uncond, c->std);
    bl_tensor joint = mixture_noise(x, a_t, c->means, c->joint, c->std);
    bl_tensor eps = bl_add(uncond, towards(uncond, c->guidance_fusion, joint));
    return fusion_step(x, eps, noise, a_t, a_prev, c->eta_fusion);
}

static bl_tensor refinement(const chain *c, bl_tensor x, bl_tensor a_t, bl_tensor a_prev)
{
    bl_tensor uncond = mixture_noise(x, a_t, c->means, c->uncond, c->std), x0;
    bl_tensor subject = mixture_noise(x, a_t, c->means, c->subject, c->std);
    bl_tensor text = mixture_noise(x, a_t, c->means, c->text, c->std);
    bl_tensor way =
        bl_add(towards(uncond, c->w_subject, subject), towards(uncond, c->w_text, text));
    return ddim_step(x, bl_add(uncond, way), bl_zeros_like(x), a_t, a_prev, bl_number(0), &x0);
}

/* row[0] is the step's noise [M,B,D], row[1] and row[2] its a_t and a_prev. */
static void sampling_step(bl_graph *graph, const bl_tensor *carry, const bl_tensor *row,
                          bl_tensor *next, bl_tensor *y, void *context)
{
    (void)graph, (void)y;
    const chain *c = context;
    bl_tensor x = *carry;
    for (int64_t j = 0; j < c->fusion_steps; j++) {
        bl_tensor noise = bl_pick(row[0], 0, j);
        x = fusion_move(c, x, noise, row[1], row[2]);
    }
    *next = refinement(c, x, row[1], row[2]);
}

static bl_status profusion_sample_gmm_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *alphas = bl_dictionary_find(in, "alphas");
    for (int64_t i = 1; i < bl_array_count(alphas); i++)
        if (bl_array_get(alphas, i) < bl_array_get(alphas, i - 1))
            return bl_fail(BL_INVALID,
                           "alphas[%lld] is %.9g, expected at least the one before it, %.9g: the "
                           "noisiest level comes first",
                           (long long)i, bl_array_get(alphas, i), bl_array_get(alphas, i - 1));
    return BL_OK;
}

const bl_method bl_profusion = {
    .slug = "profusion",
    .family = "generative",
    .paper = "Zhou et al. 2023, arXiv 2305.13579",
    .summary = "(no arm) a diffusion sampler for two conditions, of which one drowns the other",
    .when = "A conditional diffusion model has a dominant condition, as a learned word for one "
            "subject. Each fusion move costs as much as a guided denoising step.",
    .functions = {&profusion_fusion_step_contract, &profusion_compose_eps_contract,
                  &profusion_ddim_step_contract, &profusion_scale_token_contract,
                  &profusion_denoise_loss_contract, &profusion_add_noise_contract,
                  &profusion_gmm_eps_contract, &profusion_sample_gmm_contract},
    .example = "ballast show profusion_fusion_step",
};
