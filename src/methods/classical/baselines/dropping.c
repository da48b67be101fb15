/* Noise inside the network and on its inputs: dropout, DropConnect, stochastic depth, input noise.
 * Draws are fresh in every step and for every site; an evaluation graph has none of it. */
#include "methods/classical/baselines/weights.h"

static bl_tensor draws(bl_step *s, const char *name, bl_shape shape)
{
    return bl_uniform(bl_step_key(s, name), shape);
}

/* --- dropout ---------------------------------------------------------------------------------- */

#define BASE_DROPOUT(IN, OPT, OUT)                                                                 \
    IN(x, "f32[S...]", "grad", "activations")                                                      \
    IN(u, "f32[S...]", "0 <= . < 1", "uniform draws")                                              \
    OPT(p, 0.5, "[0,1), tune [0.05,0.6]", "share dropped")                                         \
    OUT(y, "f32[S...]", "x [u >= p] / (1-p)")

BL_CONTRACT(base_dropout, BASE_DROPOUT, "drops activations at random (Srivastava et al. 2014)")
{
    f->y = bl_drop(f->x, f->u, f->p);
}

static bl_tensor dropout_site(bl_step *s, const void *options, const bl_site_info *site,
                              bl_tensor value)
{
    struct base_dropout f = *(const struct base_dropout *)options;
    if (!s->training || (site->kind != BL_SITE_HIDDEN && site->kind != BL_SITE_FEATURES))
        return value;
    f.x = value;
    f.u = draws(s, site->path, bl_type_of(value).shape);
    bl_call(base_dropout, &f);
    return f.y;
}

const bl_method bl_dropout = {
    .slug = "dropout",
    .family = "classical",
    .paper = "Srivastava et al. 2014",
    .summary = "drops activations of the hidden dense layers at random",
    .when = "Wide dense layers and little data. Nearly free for each step, but training takes more "
            "steps.",
    .functions = {&base_dropout_contract},
    .example = "--arm \"dropout(p=0.3)\"",
    .hooks = &(const bl_hooks){.site = dropout_site},
};

/* --- DropConnect ------------------------------------------------------------------------------ */

#define BASE_DROPCONNECT(IN, OPT, OUT)                                                             \
    IN(x, "f32[B,I]", "grad", "inputs of a dense layer")                                           \
    IN(w, "f32[O,I]", "grad", "its weights")                                                       \
    IN(b, "f32[O]", "grad", "its biases")                                                          \
    IN(u, "f32[O,I] | f32[B,O,I]", "0 <= . < 1", "uniform draws: one mask, or one each example")   \
    OPT(p, 0.5, "[0,1)", "share of weights dropped")                                               \
    OUT(y, "f32[B,O]", "x (w [u >= p] / (1-p))^T + b")

BL_CONTRACT(base_dropconnect, BASE_DROPCONNECT, "drops weights at random (Wan et al. 2013)")
{
    bl_tensor w = bl_drop(f->w, f->u, f->p);
    bl_tensor y = bl_rank(f->u) == 2 ? bl_dot(f->x, w, false, true)
                                     : bl_squeeze(bl_dot(bl_expand(f->x, 1), w, false, true), 1);
    f->y = bl_add(y, f->b);
}

#define DROPCONNECT(OPT) OPT(p, 0.5, "[0,1), tune [0.05,0.6]", "share of the weights dropped")

BL_ARM_OPTIONS(dropconnect, DROPCONNECT)

/* One mask for the batch: a mask for each example would multiply the weights' memory by B. */
static bl_tensor dropconnect_weight(bl_step *s, const void *options, int parameter, bl_tensor value)
{
    const struct dropconnect *o = options;
    const bl_parameter *p = &s->parameter[parameter];
    if (!s->training || !is_hidden_weight(s, parameter) || p->type.shape.rank != 2)
        return value;
    return bl_drop(value, draws(s, p->path, p->type.shape), o->p);
}

const bl_method bl_dropconnect = {
    .slug = "dropconnect",
    .family = "classical",
    .paper = "Wan et al. 2013",
    .summary = "drops weights of the hidden dense layers at random",
    .when = "As dropout, a little weaker: one mask for the whole batch, the mean network in "
            "evaluation.",
    .functions = {&base_dropconnect_contract},
    .options = &dropconnect_contract,
    .example = "--arm \"dropconnect(p=0.3)\"",
    .hooks = &(const bl_hooks){.weight = dropconnect_weight},
};

/* --- stochastic depth ------------------------------------------------------------------------- */

#define BASE_STOCHASTIC_DEPTH(IN, OPT, OUT)                                                        \
    IN(x, "f32[B,S...]", "grad", "the shortcut")                                                   \
    IN(branch, "f32[B,S...]", "grad", "the residual branch")                                       \
    IN(u, "f32[1] | f32[B]", "0 <= . < 1", "uniform draws: one, or one each example")              \
    OPT(p, 0.2, "[0,1)", "share of branches dropped")                                              \
    OPT(scale, 1, "flag", "divide by 1-p, so that the mean is unchanged")                          \
    OUT(y, "f32[B,S...]", "x + branch [u >= p] (/ (1-p) if scale)")

BL_CONTRACT(base_stochastic_depth, BASE_STOCHASTIC_DEPTH,
            "drops residual branches at random (Huang et al. 2016)")
{
    bl_tensor scaled = bl_drop_rows(f->branch, f->u, f->p);
    f->y = bl_add(f->x, f->scale ? scaled : bl_mul(scaled, bl_sub(1, f->p)));
}

#define STOCHASTIC_DEPTH(OPT)                                                                      \
    OPT(p, 0.2, "[0,1), tune [0.05,0.5]",                                                          \
        "share dropped of the last branch; earlier ones in proportion to depth")

BL_ARM_OPTIONS(stochastic_depth, STOCHASTIC_DEPTH)

static bl_tensor stochastic_depth_site(bl_step *s, const void *options, const bl_site_info *site,
                                       bl_tensor value)
{
    const struct stochastic_depth *o = options;
    if (!s->training || site->kind != BL_SITE_BRANCH)
        return value;
    bl_tensor u = draws(s, site->path, BL_SHAPE(bl_dim(value, 0)));
    return bl_drop_rows(value, u, bl_mul(o->p, site->depth));
}

const bl_method bl_stochastic_depth = {
    .slug = "stochastic_depth",
    .family = "classical",
    .paper = "Huang et al. 2016, arXiv 1603.09382",
    .summary = "drops residual branches at random, later ones more often",
    .when = "Deep residual networks. Each example has its own draw; dropped branches are still "
            "computed.",
    .functions = {&base_stochastic_depth_contract},
    .options = &stochastic_depth_contract,
    .example = "--arm \"stochastic_depth(p=0.2)\"",
    .traits = BL_BRANCHES,
    .hooks = &(const bl_hooks){.site = stochastic_depth_site},
};

/* --- input noise ------------------------------------------------------------------------------ */

#define BASE_INPUT_NOISE(IN, OPT, OUT)                                                             \
    IN(x, "f32[S...]", "", "inputs")                                                               \
    IN(noise, "f32[S...]", "", "standard normal draws")                                            \
    OPT(std, 0.1, "[0,inf)", "standard deviation")                                                 \
    OPT(lo, -1e30, "", "smallest value")                                                           \
    OPT(hi, 1e30, "", "largest value")                                                             \
    OUT(y, "f32[S...]", "x + std noise, kept in [lo, hi]")

BL_CONTRACT(base_input_noise, BASE_INPUT_NOISE, "adds noise to inputs (Bishop 1995)")
{
    f->y = bl_clamp(bl_add(f->x, bl_mul(f->std, f->noise)), f->lo, f->hi);
}

#define INPUT_NOISE(OPT)                                                                           \
    OPT(std, 0.1, "[0,inf), tune [0.02,0.5] log",                                                  \
        "standard deviation, in standard deviations of the inputs")

BL_ARM_OPTIONS(input_noise, INPUT_NOISE)

static void input_noise_batch(bl_step *s, const void *options)
{
    struct base_input_noise f = BL_DEFAULTS(base_input_noise);
    f.std = ((const struct input_noise *)options)->std;
    f.x = s->inputs;
    f.noise = bl_normal(bl_step_key(s, "noise"), bl_type_of(s->inputs).shape);
    bl_call(base_input_noise, &f);
    s->inputs = f.y;
}

const bl_method bl_input_noise = {
    .slug = "input_noise",
    .family = "classical",
    .paper = "Bishop 1995",
    .summary = "adds noise to the inputs",
    .when = "Measurements with errors, small tables. Nearly free.",
    .functions = {&base_input_noise_contract},
    .options = &input_noise_contract,
    .example = "--arm \"input_noise(std=0.2)\"",
    .hooks = &(const bl_hooks){.batch = input_noise_batch},
};
