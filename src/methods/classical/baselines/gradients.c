/* What is done to gradients between the backward pass and the optimiser: clipping and noise. In an
 * arm they act in the order written: clip_norm+gradient_noise clips first. */
#include "methods/classical/baselines/weights.h"

/* --- clipping by norm ------------------------------------------------------------------------- */

#define BASE_CLIP_GRAD_NORM(IN, OPT, OUT, INS, OUTS)                                               \
    INS(g, "f32[S...]", "", "gradients of all parameters")                                         \
    OPT(max_norm, 1.0, "[0,inf), tune [0.1,10] log", "largest length of all gradients together")   \
    OUTS(g_new, "f32[S...]", "g min(1, max_norm / (total_norm + 1e-6))")                           \
    OUT(total_norm, "f32[]", "sqrt of the sum of all squares, before clipping")

static bl_tensor clipping_factor(bl_tensor norm, bl_tensor max_norm)
{
    return bl_min(bl_div(max_norm, bl_add(norm, 1e-6)), 1);
}

BL_CONTRACT_LISTS(base_clip_grad_norm, BASE_CLIP_GRAD_NORM,
                  "shortens the gradient of all parameters together (Pascanu et al. 2013)")
{
    f->total_norm = bl_global_norm(f->g.at, f->g.count);
    bl_tensor factor = clipping_factor(f->total_norm, f->max_norm);
    f->g_new.count = f->g.count;
    for (int i = 0; i < f->g.count; i++)
        f->g_new.at[i] = bl_mul(f->g.at[i], factor);
}

/* On all parameters, however many; the contract's lists are bounded. */
static void clip_norm_gradient(bl_step *s, const void *options)
{
    const struct base_clip_grad_norm *o = options;
    bl_tensor norm = bl_global_norm(s->gradient, s->parameters);
    bl_tensor factor = clipping_factor(norm, o->max_norm);
    for (int i = 0; i < s->parameters; i++)
        s->gradient[i] = bl_mul(s->gradient[i], factor);
    bl_measure(s, "clipped", bl_cast(bl_gt(norm, o->max_norm), BL_F32));
    bl_measure(s, "norm", norm);
}

const bl_method bl_clip_norm = {
    .slug = "clip_norm",
    .family = "classical",
    .paper = "Pascanu et al. 2013, arXiv 1211.5063",
    .summary = "shortens the gradient where it is longer than max_norm",
    .when = "When single batches throw training off. The share of steps that were clipped is "
            "reported: near 1 it is a smaller learning rate, near 0 nothing.",
    .functions = {&base_clip_grad_norm_contract},
    .example = "--arm \"clip_norm(max_norm=1)\"",
    .hooks = &(const bl_hooks){.gradient = clip_norm_gradient},
};

/* --- clipping by value ------------------------------------------------------------------------ */

#define BASE_CLIP_GRAD_VALUE(IN, OPT, OUT)                                                         \
    IN(g, "f32[S...]", "", "gradient")                                                             \
    OPT(limit, 0.5, "[0,inf), tune [0.05,5] log", "largest absolute value")                        \
    OUT(g_new, "f32[S...]", "g kept in [-limit, limit]")

BL_CONTRACT(base_clip_grad_value, BASE_CLIP_GRAD_VALUE, "limits every element of a gradient")
{
    f->g_new = bl_clamp(f->g, bl_neg(f->limit), f->limit);
}

static void clip_value_gradient(bl_step *s, const void *options)
{
    bl_tensor changed = bl_number(0);
    double elements = 0;
    for (int i = 0; i < s->parameters; i++) {
        struct base_clip_grad_value f = *(const struct base_clip_grad_value *)options;
        f.g = s->gradient[i];
        bl_call(base_clip_grad_value, &f);
        changed = bl_add(changed, bl_sum(bl_cast(bl_ne(f.g_new, f.g), BL_F32)));
        elements += (double)bl_type_count(s->parameter[i].type);
        s->gradient[i] = f.g_new;
    }
    bl_measure(s, "clipped", bl_div(changed, elements));
}

const bl_method bl_clip_value = {
    .slug = "clip_value",
    .family = "classical",
    .paper = "textbook",
    .summary = "limits every element of the gradient",
    .when = "As clip_norm, where a few elements are to blame; it changes the gradient's direction.",
    .functions = {&base_clip_grad_value_contract},
    .example = "--arm \"clip_value(limit=0.1)\"",
    .hooks = &(const bl_hooks){.gradient = clip_value_gradient},
};

/* --- noise ------------------------------------------------------------------------------------ */

#define BASE_GRADIENT_NOISE(IN, OPT, OUT)                                                          \
    IN(g, "f32[S...]", "", "gradient")                                                             \
    IN(noise, "f32[S...]", "", "standard normal draws")                                            \
    IN(step, "i32[]", ">= 0", "0 for the first step")                                              \
    OPT(eta, 0.01, "[0,inf), tune [0.001,0.3] log", "variance at the first step")                  \
    OPT(gamma, 0.55, "[0,inf), tune never", "how fast the variance falls")                         \
    OUT(g_new, "f32[S...]", "g + noise sqrt(eta / (1+step)^gamma)")

BL_CONTRACT(base_gradient_noise, BASE_GRADIENT_NOISE,
            "adds noise that fades as training goes on (Neelakantan et al. 2015)")
{
    bl_tensor age = bl_add(bl_cast(f->step, BL_F32), 1);
    bl_tensor deviation = bl_sqrt(bl_div(f->eta, bl_pow(age, f->gamma)));
    f->g_new = bl_add(f->g, bl_mul(f->noise, deviation));
}

static void gradient_noise_gradient(bl_step *s, const void *options)
{
    for (int i = 0; i < s->parameters; i++) {
        struct base_gradient_noise f = *(const struct base_gradient_noise *)options;
        f.g = s->gradient[i];
        f.step = s->step;
        f.noise = bl_normal(bl_step_key(s, s->parameter[i].path), s->parameter[i].type.shape);
        bl_call(base_gradient_noise, &f);
        s->gradient[i] = f.g_new;
    }
}

const bl_method bl_gradient_noise = {
    .slug = "gradient_noise",
    .family = "classical",
    .paper = "Neelakantan et al. 2015, arXiv 1511.06807",
    .summary = "adds fading noise to the gradient",
    .when = "In very deep networks that settle too early. One normal draw for each parameter and "
            "step.",
    .functions = {&base_gradient_noise_contract},
    .example = "--arm \"gradient_noise(eta=0.1)\"",
    .hooks = &(const bl_hooks){.gradient = gradient_noise_gradient},
};
