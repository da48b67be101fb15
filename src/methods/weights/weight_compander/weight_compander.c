/* Weight compander. Cakaj, Mehnert, Yang, 2023, arXiv 2306.16993. Every weight w is a bounded, odd
 * function of a free parameter v that the optimiser moves: no weight can grow without bound, and
 * small ones leave zero quickly where the slope a/b exceeds 1. Afterwards the plain w is exported.
 *
 * There is no official code. The atan form is the paper's; how a, b and v start, the tanh form and
 * the floor under a are this project's choices. */
#include "methods/method.h"

#define WC_REPARAM(IN, OPT, OUT)                                                                   \
    IN (v, "f32[S...]",      "grad",      "free parameter")                                        \
    IN (a, "f32[] | f32[...]", "grad, > 0", "amplitude: one, or one for each of some axes of v")   \
    IN (b, "f32[] | f32[...]", "grad, > 0", "width, likewise")                                     \
    OPT(fn, "atan",          "atan|tanh", "shape of the function")                                 \
    OUT(w, "f32[S...]",      "a fn(v / b)")

/* One number, or as many axes as v, each of size 1 or v's. */
static bool fits(bl_shape a, bl_shape v)
{
    bool fine = a.rank == 0 || a.rank == v.rank;
    for (int i = 0; i < a.rank && fine; i++)
        fine = a.dim[i] == 1 || a.dim[i] == v.dim[i];
    return fine;
}

#define WC_MISFIT "%s is %s, expected one number or as many axes as %s, each of size 1 or the same"

BL_CONTRACT(wc_reparam, WC_REPARAM, "the weight that a free parameter stands for")
{
    bl_type v = bl_type_of(f->v), a = bl_type_of(f->a), b = bl_type_of(f->b);
    if (!fits(a.shape, v.shape) || !fits(b.shape, v.shape)) {
        char text[2][BL_TYPE_TEXT];
        bool of_a = !fits(a.shape, v.shape);
        bl_poison(graph, WC_MISFIT, of_a ? "a" : "b", bl_type_text(of_a ? a : b, text[0]),
                  bl_type_text(v, text[1]));
        return;
    }
    bl_tensor z = bl_div(f->v, f->b);
    f->w = bl_mul(f->a, bl_is(f->fn, "atan") ? bl_atan(z) : bl_tanh(z));
}

#define WC_INVERSE(IN, OPT, OUT)                                                                   \
    IN (w,         "f32[S...]",        "",          "wanted weight")                               \
    IN (a,         "f32[] | f32[...]", "> 0",       "amplitude")                                   \
    IN (b,         "f32[] | f32[...]", "> 0",       "width")                                       \
    OPT(fn,        "atan",             "atan|tanh", "shape of the function")                       \
    OPT(eps,       1e-3,               "(0,1)",     "how far from its bounds to stay")             \
    OUT(v,         "f32[S...]",        "free parameter")                                           \
    OUT(n_clipped, "i32[]",            "weights out of reach: for them the function changed")

/* Where element i of an array of shape v finds its value in a, which fits v. */
static double spread(const bl_array *a, bl_shape v, int64_t i)
{
    int64_t place = 0, stride = 1;
    for (int axis = v.rank - 1; axis >= 0 && a->type.shape.rank; axis--) {
        int64_t size = a->type.shape.dim[axis];
        place += size == 1 ? 0 : i % v.dim[axis] * stride;
        stride *= size;
        i /= v.dim[axis];
    }
    return (double)bl_f32(a)[place];
}

BL_HOST(wc_inverse, WC_INVERSE, "the free parameter that stands for a wanted weight")
{
    bl_type w = f->w.type;
    const bl_array *scale[2] = {&f->a, &f->b};
    for (int k = 0; k < 2; k++) {
        char text[2][BL_TYPE_TEXT];
        if (!fits(scale[k]->type.shape, w.shape))
            return bl_fail(BL_INVALID, WC_MISFIT, k ? "b" : "a",
                           bl_type_text(scale[k]->type, text[0]), bl_type_text(w, text[1]));
    }
    bool atan_form = bl_is(f->fn, "atan");
    double limit = (atan_form ? 1.5707963267948966 : 1) * (1 - f->eps);
    int64_t count = bl_array_count(&f->w), clipped = 0;
    bool each = bl_array_count(&f->a) != 1 || bl_array_count(&f->b) != 1;
    double a = each ? 0 : (double)bl_f32(&f->a)[0], b = each ? 0 : (double)bl_f32(&f->b)[0];
    for (int64_t i = 0; i < count; i++) {
        if (each) {
            a = spread(&f->a, w.shape, i);
            b = spread(&f->b, w.shape, i);
        }
        double z = (double)bl_f32(&f->w)[i] / a;
        clipped += fabs(z) > limit;
        z = z > limit ? limit : z < -limit ? -limit : z;
        bl_f32(&f->v)[i] = (float)(b * (atan_form ? tan(z) : atanh(z)));
    }
    bl_i32(&f->n_clipped)[0] = (int32_t)clipped;
    return BL_OK;
}

#define WC_WEIGHT_STATS(IN, OPT, OUT)                                                              \
    IN (w,          "f32[...]", "",       "weights, all of them together")                         \
    OPT(tau,        0.1,        "[0,inf)", "small means below tau standard deviations")            \
    OUT(max_abs,    "f32[]",    "largest magnitude")                                               \
    OUT(mean_abs,   "f32[]",    "mean magnitude")                                                  \
    OUT(std,        "f32[]",    "standard deviation, dividing by n")                               \
    OUT(frac_small, "f32[]",    "share of weights with |w| < tau std")                             \
    OUT(kurtosis,   "f32[]",    "fourth central moment / std^4; 3 for a normal, 0 if std is 0")

static double central_moment(const bl_array *w, double mean, int power)
{
    int64_t n = bl_array_count(w);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double square = ((double)bl_f32(w)[i] - mean) * ((double)bl_f32(w)[i] - mean);
        sum += power == 4 ? square * square : square;
    }
    return sum / (double)n;
}

/* 0 where all are equal, whatever the rounding of their mean. */
static double standard_deviation(const bl_array *w, double *mean)
{
    int64_t n = bl_array_count(w);
    const float *x = bl_f32(w);
    bool equal = true;
    *mean = 0;
    for (int64_t i = 0; i < n; i++) {
        *mean += (double)x[i] / (double)n;
        equal = equal && x[i] == x[0];
    }
    return equal ? 0 : sqrt(central_moment(w, *mean, 2));
}

BL_HOST(wc_weight_stats, WC_WEIGHT_STATS, "how the weights are distributed")
{
    int64_t n = bl_array_count(&f->w);
    if (n == 0)
        return bl_fail(BL_INVALID, "w is empty, expected at least one weight");
    double mean, std = standard_deviation(&f->w, &mean), largest = 0, sum = 0, small = 0;
    for (int64_t i = 0; i < n; i++) {
        double size = fabs((double)bl_f32(&f->w)[i]);
        largest = fmax(largest, size);
        sum += size;
        small += size < f->tau * std;
    }
    double fourth = std > 0 ? central_moment(&f->w, mean, 4) / (std * std * std * std) : 0;
    bl_array_set(&f->max_abs, 0, largest);
    bl_array_set(&f->mean_abs, 0, sum / (double)n);
    bl_array_set(&f->std, 0, std);
    bl_array_set(&f->frac_small, 0, small / (double)n);
    bl_array_set(&f->kurtosis, 0, fourth);
    return BL_OK;
}

#define WEIGHT_COMPANDER(OPT)                                                                      \
    OPT(fn,      "atan",  "atan|tanh",    "shape of the function")                                 \
    OPT(amp, 2.0, "(0,inf), tune [1,4] log", "a, in standard deviations of the initial weights")   \
    OPT(slope, 1.5, "(0,inf), tune [1,3] log", "a / b, the slope at 0; above 1 spreads small ones")\
    OPT(eps,     0.08,    "(0,1), tune never", "how far from the bounds a weight may start")       \
    OPT(start,   "match", "match|direct", "keep the initial weights, or use them as v")            \
    OPT(learned, 0,       "flag",         "let a and b follow their gradients, a pair a layer")    \
    OPT(rate, 0.01, "(0,inf), tune never", "their learning rate, as a share of the run's")
BL_ARM_OPTIONS(weight_compander, WEIGHT_COMPANDER)

enum { MOST_PARAMETERS = 512 };
static const float smallest_scale = 1e-3f; /* of a and b */

/* Weights and kernels, but not the classifier's; biases and normalisation stay as they are. */
static bool is_companded(const bl_parameter *p)
{
    return p->role == BL_WEIGHT && !p->classifier;
}

/* Chooses a from the drawn weights and replaces them by the v that stands for them. */
static bl_status start_weights(bl_training *t, const void *options)
{
    const struct weight_compander *o = options;
    const bl_parameter *parameter;
    int count = bl_training_parameters(t, &parameter);
    bl_array *amplitude = bl_training_state(t, "amplitude");
    bl_array *width = bl_training_state(t, "width");
    if (!amplitude || !width || count > MOST_PARAMETERS)
        return bl_fail(BL_UNSUPPORTED, "weight_compander: the model has %d parameter arrays, "
                                       "expected at most %d", count, MOST_PARAMETERS);
    for (int i = 0; i < count; i++) {
        if (!is_companded(&parameter[i]))
            continue;
        bl_array *w = bl_training_parameter(t, i);
        double mean;
        float a = (float)(o->amp.number * standard_deviation(w, &mean));
        a = fmaxf(a, smallest_scale);
        float b = fmaxf(a / (float)o->slope.number, smallest_scale);
        bl_f32(amplitude)[i] = a, bl_f32(width)[i] = b;
        int32_t clipped = 0;
        struct wc_inverse f = {.w = *w, .v = *w, .fn = o->fn, .eps = o->eps.number};
        f.a = (bl_array){{BL_F32, BL_SCALAR}, &a};
        f.b = (bl_array){{BL_F32, BL_SCALAR}, &b};
        f.n_clipped = (bl_array){{BL_I32, BL_SCALAR}, &clipped};
        if (bl_is(o->start, "match"))
            BL_TRY(wc_inverse_host(&f));
    }
    return BL_OK;
}

static bl_tensor compand(bl_step *s, const void *options, int i, bl_tensor value)
{
    const struct weight_compander *o = options;
    if (!is_companded(&s->parameter[i]) || i >= MOST_PARAMETERS)
        return value;
    struct wc_reparam f = BL_DEFAULTS(wc_reparam);
    f.v = value, f.fn = o->fn;
    f.a = bl_pick(bl_state(s, "amplitude"), 0, i);
    f.b = bl_pick(bl_state(s, "width"), 0, i);
    bl_call(wc_reparam, &f);
    return f.w;
}

/* Plain gradient steps on a and b; entries of other parameters stay 0. */
static void learn_scales(bl_step *s, const void *options)
{
    const struct weight_compander *o = options;
    if (!o->learned)
        return;
    static const char *const name[2] = {"amplitude", "width"};
    bl_tensor scale[2] = {bl_state(s, name[0]), bl_state(s, name[1])}, slope[2];
    bl_grad(s->loss, scale, 2, slope);
    for (int k = 0; k < 2; k++) {
        bl_tensor step = bl_mul(bl_mul(o->rate, s->learning_rate), slope[k]);
        bl_tensor moved = bl_max(bl_sub(scale[k], step), (double)smallest_scale);
        bl_set_state(s, name[k], bl_select(bl_gt(scale[k], 0), moved, scale[k]));
    }
}

static const bl_hooks weight_compander_hooks = {
    .init = start_weights,
    .weight = compand,
    .update = learn_scales,
    .state = {{"amplitude", "f32[512]", 0.0}, {"width", "f32[512]", 0.0}},
};

const bl_method bl_weight_compander = {
    .slug = "weight_compander",
    .family = "weights",
    .paper = "Cakaj, Mehnert, Yang 2023, arXiv 2306.16993",
    .summary = "bounds every weight by a smooth function of a free parameter",
    .when = "A network overfits because a few large weights decide. Costs one elementwise function "
            "per weight and step; inference is unchanged.",
    .functions = {&wc_reparam_contract, &wc_inverse_contract, &wc_weight_stats_contract},
    .options = &weight_compander_contract,
    .example = "--arm \"weight_compander(amp=2,slope=1.5)\"",
    .hooks = &weight_compander_hooks,
};
