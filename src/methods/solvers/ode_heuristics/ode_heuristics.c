/* Regularised solver heuristics. Pal, Ma, Shah, Rackauckas, ICML 2021, arXiv 2105.03918. A neural
 * differential equation becomes slower as it is trained: its adaptive solver takes more and more
 * steps. At every step the solver knows its local error and how stiff the field is, for free;
 * added to the loss, they teach the network dynamics that need few steps.
 *
 * The steps and the solver are those of the library, for any field (ballast/solve.h). Here they
 * have the field of the official MNIST experiment, two tanh layers that are told the time. Errors
 * are in units of the tolerances, which turns float32's rounding at 1e-7 into an error of a tenth
 * where they are 1e-6: steps are computed in double. */
#include "methods/method.h"

#include "ballast/solve.h"

#define ODE_PARAMETERS(IN)                                                                         \
    IN (w1, "f32[H,d1]", "grad", "d1 = d + 1: the time is the last column")                        \
    IN (b1, "f32[H]",    "grad", "")                                                               \
    IN (w2, "f32[d,H1]", "grad", "H1 = H + 1: the time is the last column")                        \
    IN (b2, "f32[d]",    "grad", "")

/* [x; t] w^T + b, without putting the time beside x: the columns of w are the same at every stage,
 * so they are taken apart once. */
static bl_tensor layer_at(bl_tensor x, bl_tensor t, bl_tensor w, bl_tensor b, const char *name)
{
    int64_t columns = bl_dim(x, 1);
    if (bl_dim(w, 1) != columns + 1)
        return bl_poison(x.graph, "%s has %lld columns, expected %lld, the last one for the time",
                         name, (long long)bl_dim(w, 1), (long long)columns + 1);
    bl_tensor of_time = bl_pick(w, 1, columns);
    bl_tensor shift   = bl_add(bl_mul(t, of_time), b);
    return bl_linear(x, bl_slice_axis(w, 1, 0, columns), shift);
}

/* f(z, t) = tanh(W2 [tanh(W1 [z; t] + b1); t] + b2) */
static bl_tensor mlp2t(bl_tensor z, bl_tensor t, const bl_tensor *p, BL_UNUSED_ void *context)
{
    bl_tensor hidden = bl_tanh(layer_at(z, t, p[0], p[1], "w1"));
    return bl_tanh(layer_at(hidden, t, p[2], p[3], "w2"));
}

/* --- one step -------------------------------------------------------------------------------- */

#define ODE_HEURISTICS_TSIT5_STEP(IN, OPT, OUT)                                                    \
    IN (z,       "f32[B,d]", "grad, rows > 0", "state at t")                                       \
    IN (t,       "f32[]",    "",               "time")                                             \
    IN (dt,      "f32[]",    "",               "size of the step")                                 \
    ODE_PARAMETERS(IN)                                                                             \
    OPT(rtol,    1e-6,       "(0,inf)",        "relative tolerance")                               \
    OPT(atol,    1e-6,       "(0,inf)",        "absolute tolerance")                               \
    OPT(field,   "mlp2t",    "mlp2t",          "the dynamics")                                     \
    OUT(z_next,  "f32[B,d]", "state at t + dt, of order 5")                                        \
    OUT(err,     "f32[]",    "local error in units of the tolerance")                              \
    OUT(err_abs, "f32[]",    "local error")                                                        \
    OUT(stiff,   "f32[]",    "rms(k7 - k6) / rms(z_next - g6), 0 where nothing moves")             \
    OUT(k7,      "f32[B,d]", "field at z_next: the first stage of the next step")

BL_CONTRACT(ode_heuristics_tsit5_step, ODE_HEURISTICS_TSIT5_STEP,
            "a step of Tsitouras' method, with its error and stiffness")
{
    bl_tensor z = bl_cast(f->z, BL_F64), t = bl_cast(f->t, BL_F64), dt = bl_cast(f->dt, BL_F64);
    const bl_tensor parameter[4] = {bl_cast(f->w1, BL_F64), bl_cast(f->b1, BL_F64),
                                    bl_cast(f->w2, BL_F64), bl_cast(f->b2, BL_F64)};
    bl_ode_step s = bl_tsit5_step(mlp2t, NULL, parameter, z, mlp2t(z, t, parameter, NULL),
                                  bl_stop_gradient(t), bl_stop_gradient(dt),
                                  bl_cast(f->rtol, BL_F64), bl_cast(f->atol, BL_F64));
    f->z_next  = bl_cast(s.z, BL_F32);
    f->err     = bl_cast(s.error, BL_F32);
    f->err_abs = bl_cast(s.error_rms, BL_F32);
    f->stiff   = bl_cast(s.stiffness, BL_F32);
    f->k7      = bl_cast(s.slope, BL_F32);
}

/* --- what is added to the loss --------------------------------------------------------------- */

#define ODE_REGULARIZER(OPT)                                                                       \
    OPT(kind,      "error",  "error|stiff|error_stiff", "which heuristic")                         \
    OPT(agg,       "sum",    "sum|mean|max",            "over steps; the paper: sum")              \
    OPT(mix,       0.1,      "[0,inf)",                 "weight of stiffness in error_stiff")      \
    OPT(stability, 3.5068,   "(0,inf)",                 "of the solver; SOSRI2 has 10.6")

#define ODE_HEURISTICS_REGULARIZER(IN, OPT, OUT)                                                   \
    IN (err,       "f32[S]", "grad, rows > 0", "of each step")                                     \
    IN (dt,        "f32[S]", "",               "sizes of the steps")                               \
    IN (stiff,     "f32[S]", "grad",           "of each step")                                     \
    ODE_REGULARIZER(OPT)                                                                           \
    OUT(reg,       "f32[]",  "err dt, |stiff| / stability, or err dt + mix |stiff| / stability")

/* reg for vectors of any float dtype; mix and stability are numbers or scalars of it. */
static bl_tensor regularizer(bl_tensor err, bl_tensor dt, bl_tensor stiff, const char *kind,
                             const char *agg, bl_tensor mix, bl_tensor stability)
{
    bl_tensor error = bl_mul(err, bl_stop_gradient(dt));
    bl_tensor each  = bl_div(bl_abs(stiff), stability);
    if (bl_is(kind, "error"))
        each = error;
    else if (bl_is(kind, "error_stiff"))
        each = bl_add(error, bl_mul(mix, each));
    return bl_is(agg, "sum")    ? bl_sum(each)
           : bl_is(agg, "mean") ? bl_mean(each)
                                : bl_reduce_max(each);
}

BL_CONTRACT(ode_heuristics_regularizer, ODE_HEURISTICS_REGULARIZER,
            "aggregates the heuristics of the steps of a solve")
{
    f->reg = regularizer(f->err, f->dt, f->stiff, f->kind, f->agg, f->mix, f->stability);
}

#define ODE_HEURISTICS_LAMBDA(IN, OPT, OUT)                                                        \
    IN (epoch,  "f32[]", "",        "from 0")                                                      \
    OPT(start,  100.0,   "(0,inf)", "weight at first")                                             \
    OPT(end,    10.0,    "(0,inf)", "weight after the last epoch")                                 \
    OPT(epochs, 75,      ">= 1",    "of the training")                                             \
    OUT(lam,    "f32[]", "start (end / start)^(epoch / epochs)")

BL_CONTRACT(ode_heuristics_lambda, ODE_HEURISTICS_LAMBDA, "weight of the regulariser, annealed")
{
    bl_tensor rate = bl_div(bl_log(bl_div(f->start, f->end)), (double)f->epochs);
    f->lam = bl_mul(f->start, bl_exp(bl_neg(bl_mul(rate, f->epoch))));
}

/* --- a whole solve --------------------------------------------------------------------------- */

#define ODE_HEURISTICS_SOLVE(IN, OPT, OUT)                                                         \
    IN (z,         "f32[B,d]", "grad, rows > 0", "state at t0")                                    \
    ODE_PARAMETERS(IN)                                                                             \
    OPT(t0,        0.0,        "",         "start")                                                \
    OPT(t1,        1.0,        "(t0,inf)", "end")                                                  \
    OPT(rtol,      1e-6,       "(0,inf)",  "relative tolerance")                                   \
    OPT(atol,      1e-6,       "(0,inf)",  "absolute tolerance")                                   \
    OPT(dt0,       0.0,        "[0,inf)",  "first step; 0: automatic")                             \
    OPT(max_steps, 10000,      ">= 1",     "accepted and rejected steps, before giving up")        \
    ODE_REGULARIZER(OPT)                                                                           \
    OPT(field,     "mlp2t",    "mlp2t",    "the dynamics")                                         \
    OUT(z1,        "f32[B,d]", "state at t1")                                                      \
    OUT(reg,       "f32[]",    "the regulariser of the accepted steps")                            \
    OUT(err,       "f32[?]",   "of the accepted steps, in units of the tolerance")                 \
    OUT(dt,        "f32[?]",   "their sizes")                                                      \
    OUT(stiff,     "f32[?]",   "their stiffness")                                                  \
    OUT(nfe,       "i32[]",    "evaluations of the field")                                         \
    OUT(accepted,  "i32[]",    "steps taken")                                                      \
    OUT(rejected,  "i32[]",    "steps that had too large an error")

/* A solve in double: the state, the parameters, and what the solver reports. */
enum { PARAMETERS = 4 };
typedef struct solve {
    bl_ode *ode;
    bl_array z, z1, parameter[PARAMETERS];
    bl_ode_report report;
} solve;

static void solve_end(solve *s)
{
    bl_ode_free(s->ode);
    bl_array_free(&s->z);
    bl_array_free(&s->z1);
    for (int i = 0; i < PARAMETERS; i++)
        bl_array_free(&s->parameter[i]);
}

static void copy_values(const bl_array *from, bl_array *to)
{
    int64_t count = bl_array_count(from);
    for (int64_t i = 0; i < count; i++)
        bl_array_set(to, i, bl_array_get(from, i));
}

static bl_status in_double(const bl_array *from, bl_array *to)
{
    BL_TRY(bl_array_new(BL_F64, from->type.shape, to));
    copy_values(from, to);
    return BL_OK;
}

struct ode_heuristics_solve;
static bl_status solve_run(const struct ode_heuristics_solve *f, solve *s);
static bl_status regularize(const struct ode_heuristics_solve *f, const bl_ode_report *r,
                            bl_array out[3]);
static bl_status report_steps(struct ode_heuristics_solve *f, const bl_ode_report *r);
static bl_host_gradient solve_gradient;

BL_HOST_DIFFERENTIABLE(ode_heuristics_solve, ODE_HEURISTICS_SOLVE,
                       "an adaptive solve and the regulariser of its steps", solve_gradient)
{
    solve s = {0};
    bl_array reg[3] = {0};
    bl_status status = solve_run(f, &s);
    if (status == BL_OK)
        status = regularize(f, &s.report, reg);
    if (status == BL_OK)
        status = report_steps(f, &s.report);
    if (status == BL_OK) {
        copy_values(&s.z1, &f->z1);
        bl_array_set(&f->reg, 0, bl_f64(&reg[0])[0]);
    }
    for (int i = 0; i < 3; i++)
        bl_array_free(&reg[i]);
    solve_end(&s);
    return status;
}

static bl_status solve_run(const struct ode_heuristics_solve *f, solve *s)
{
    const bl_array *parameter[PARAMETERS] = {&f->w1, &f->b1, &f->w2, &f->b2};
    bl_type type[PARAMETERS];
    BL_TRY(in_double(&f->z, &s->z));
    BL_TRY(in_double(&f->z, &s->z1));
    for (int i = 0; i < PARAMETERS; i++) {
        BL_TRY(in_double(parameter[i], &s->parameter[i]));
        type[i] = s->parameter[i].type;
    }
    bl_ode_options options = {f->rtol, f->atol, f->dt0, f->max_steps};
    BL_TRY(bl_ode_new(bl_device_cpu(), mlp2t, NULL, s->z.type, type, PARAMETERS, options, &s->ode));
    return bl_ode_solve(s->ode, &s->z, s->parameter, f->t0, f->t1, &s->z1, &s->report);
}

static bl_status report_steps(struct ode_heuristics_solve *f, const bl_ode_report *r)
{
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(r->accepted), &f->err));
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(r->accepted), &f->dt));
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(r->accepted), &f->stiff));
    for (int64_t i = 0; i < r->accepted; i++) {
        bl_array_set(&f->err, i, r->step[i].error);
        bl_array_set(&f->dt, i, r->step[i].dt);
        bl_array_set(&f->stiff, i, r->step[i].stiffness);
    }
    bl_array_set(&f->nfe, 0, (double)r->evaluations);
    bl_array_set(&f->accepted, 0, (double)r->accepted);
    bl_array_set(&f->rejected, 0, (double)r->rejected);
    return BL_OK;
}

/* reg of the steps, and its derivatives in their err and stiff: out[0..3). */
static bl_status regularize(const struct ode_heuristics_solve *f, const bl_ode_report *r,
                            bl_array out[3])
{
    bl_graph *g = bl_graph_new();
    if (!g)
        return bl_no_memory(0);
    bl_array value[3] = {0};
    bl_tensor in[3], y[3];
    bl_status status = BL_OK;
    for (int i = 0; i < 3; i++) {
        in[i] = bl_input(g, "steps", BL_F64, BL_SHAPE(r->accepted));
        if (status == BL_OK)
            status = bl_array_new(BL_F64, BL_SHAPE(r->accepted), &value[i]);
    }
    for (int64_t i = 0; i < r->accepted && status == BL_OK; i++) {
        bl_f64(&value[0])[i] = r->step[i].error;
        bl_f64(&value[1])[i] = r->step[i].stiffness;
        bl_f64(&value[2])[i] = r->step[i].dt;
    }
    y[0] = regularizer(in[0], in[2], in[1], f->kind, f->agg, bl_number(f->mix),
                       bl_number(f->stability));
    bl_grad(y[0], in, 2, y + 1);
    if (status == BL_OK)
        status = bl_evaluate(bl_device_reference(), in, value, 3, y, out, 3);
    for (int i = 0; i < 3; i++)
        bl_array_free(&value[i]);
    bl_graph_free(g);
    return status;
}

/* out[i] = dreg out[i] + cotangent[i]: through reg, and of the outputs err and stiff themselves. */
static void add_cotangent(double dreg, const bl_array *cotangent, bl_array *out)
{
    int64_t count = bl_array_count(out);
    for (int64_t i = 0; i < count; i++)
        bl_f64(out)[i] =
            dreg * bl_f64(out)[i] + (cotangent->data ? bl_array_get(cotangent, i) : 0);
}

static bl_status solve_gradient(const void *fields, const void *cotangent, void *gradient)
{
    const struct ode_heuristics_solve *f = fields, *c = cotangent;
    struct ode_heuristics_solve *d = gradient;
    bl_array reg[3] = {0}, *to[PARAMETERS] = {&d->w1, &d->b1, &d->w2, &d->b2};
    bl_array dz1 = {0}, dz = {0}, dparameter[PARAMETERS] = {0};
    solve s = {0};
    bl_status status = solve_run(f, &s);
    if (status == BL_OK)
        status = regularize(f, &s.report, reg);
    if (status == BL_OK)
        status = in_double(c->z1.data ? &c->z1 : &d->z, &dz1); /* d is still zero */
    if (status == BL_OK)
        status = in_double(&d->z, &dz);
    for (int i = 0; i < PARAMETERS && status == BL_OK; i++)
        status = in_double(to[i], &dparameter[i]);
    if (status == BL_OK) {
        double dreg = c->reg.data ? bl_array_get(&c->reg, 0) : 0;
        add_cotangent(dreg, &c->err, &reg[1]);
        add_cotangent(dreg, &c->stiff, &reg[2]);
        status = bl_ode_gradient(s.ode, s.parameter, &dz1, bl_f64(&reg[1]), bl_f64(&reg[2]), &dz,
                                 dparameter);
    }
    if (status == BL_OK) {
        copy_values(&dz, &d->z);
        for (int i = 0; i < PARAMETERS; i++)
            copy_values(&dparameter[i], to[i]);
    }
    for (int i = 0; i < PARAMETERS; i++)
        bl_array_free(&dparameter[i]);
    for (int i = 0; i < 3; i++)
        bl_array_free(&reg[i]);
    bl_array_free(&dz1);
    bl_array_free(&dz);
    solve_end(&s);
    return status;
}

/* --- stochastic equations -------------------------------------------------------------------- */

#define ODE_HEURISTICS_SRI_STEP(IN, OPT, OUT)                                                      \
    IN (z,       "f32[B,d]", "grad, rows > 0", "state")                                            \
    IN (dw,      "f32[B,d]", "",               "draws of variance dt: the Brownian motion's way")  \
    IN (dz,      "f32[B,d]", "",               "independent draws of variance dt")                 \
    IN (dt,      "f32[]",    "> 0",            "size of the step")                                 \
    IN (w1,      "f32[H,d]", "grad",           "drift: tanh(z w1^T + b1) w2^T + b2")               \
    IN (b1,      "f32[H]",   "grad",           "")                                                 \
    IN (w2,      "f32[d,H]", "grad",           "")                                                 \
    IN (b2,      "f32[d]",   "grad",           "")                                                 \
    IN (wg,      "f32[d,d]", "grad",           "diffusion: z wg^T + bg")                           \
    IN (bg,      "f32[d]",   "grad",           "")                                                 \
    OPT(tableau, "sosri",    "sosri|sosri2",   "coefficients")                                     \
    OPT(rtol,    1e-2,       "(0,inf)",        "relative tolerance")                               \
    OPT(atol,    1e-2,       "(0,inf)",        "absolute tolerance")                               \
    OPT(delta,   1.0,        "[0,inf)",        "weight of the drift in the error")                 \
    OUT(z_next,  "f32[B,d]", "state a step later, of strong order 1.5")                            \
    OUT(err,     "f32[]",    "local error in units of the tolerance")                              \
    OUT(stiff,   "f32[]",    "of the drift, 0 where nothing moves")

static bl_tensor sde_drift(bl_tensor z, BL_UNUSED_ bl_tensor t, const bl_tensor *p,
                           BL_UNUSED_ void *context)
{
    bl_tensor hidden = bl_tanh(bl_linear(z, p[0], p[1]));
    return bl_linear(hidden, p[2], p[3]);
}

static bl_tensor sde_diffusion(bl_tensor z, BL_UNUSED_ bl_tensor t, const bl_tensor *p,
                               BL_UNUSED_ void *context)
{
    return bl_linear(z, p[4], p[5]);
}

BL_CONTRACT(ode_heuristics_sri_step, ODE_HEURISTICS_SRI_STEP,
            "a stochastic Runge-Kutta step, with its error and stiffness")
{
    const bl_tensor parameter[6] = {f->w1, f->b1, f->w2, f->b2, f->wg, f->bg};
    bl_sde sde = {.drift = sde_drift, .diffusion = sde_diffusion, .parameter = parameter};
    bl_sri_tableau tableau = bl_is(f->tableau, "sosri") ? BL_SOSRI : BL_SOSRI2;
    bl_sde_step s = bl_sri_step(tableau, sde, f->z, 0, bl_stop_gradient(f->dt),
                                bl_stop_gradient(f->dw), bl_stop_gradient(f->dz), f->rtol, f->atol,
                                f->delta);
    f->z_next = s.z;
    f->err    = s.error;
    f->stiff  = s.stiffness;
}

#define ODE_HEURISTICS_BROWNIAN_MERGE(IN, OPT, OUT)                                                \
    IN (dw,     "f32[n,B,d]", "rows > 0", "of each of n adjacent intervals")                       \
    IN (dz,     "f32[n,B,d]", "",         "likewise")                                              \
    IN (h,      "f32[n]",     "> 0",      "lengths of the intervals")                              \
    OUT(dw_out, "f32[B,d]",   "of the whole interval")                                             \
    OUT(dz_out, "f32[B,d]",   "likewise")                                                          \
    OUT(h_out,  "f32[]",      "its length")

/* With I = h (dw + dz / sqrt 3) / 2, the integral of W - W_start over an interval. */
BL_CONTRACT(ode_heuristics_brownian_merge, ODE_HEURISTICS_BROWNIAN_MERGE,
            "a step's draws from those of the cells that it covers")
{
    double    root3  = sqrt(3);
    bl_tensor h      = bl_expand(bl_expand(f->h, 1), 2);
    bl_tensor before = bl_sub(bl_cumsum(f->dw, 0), f->dw); /* W at an interval's start */
    bl_tensor inside = bl_mul(0.5, bl_add(f->dw, bl_div(f->dz, root3)));
    bl_tensor I_out  = bl_sum(bl_mul(h, bl_add(inside, before)), 0);
    f->dw_out = bl_sum(f->dw, 0);
    f->h_out  = bl_sum(f->h);
    f->dz_out = bl_mul(root3, bl_sub(bl_div(bl_mul(2, I_out), f->h_out), f->dw_out));
}

const bl_method bl_ode_heuristics = {
    .slug = "ode_heuristics",
    .family = "solvers",
    .paper = "Pal, Ma, Shah, Rackauckas 2021, arXiv 2105.03918",
    .summary = "(no arm) keeps neural differential equations easy to solve",
    .when = "A neural ODE or SDE whose solves become slower as it is trained, or whose inference "
            "has to be fast. The heuristics themselves cost nothing; their gradient is part of "
            "that of the solve.",
    .functions = {&ode_heuristics_solve_contract, &ode_heuristics_regularizer_contract,
                  &ode_heuristics_lambda_contract, &ode_heuristics_tsit5_step_contract,
                  &ode_heuristics_sri_step_contract, &ode_heuristics_brownian_merge_contract},
    .example = "ballast show ode_heuristics_solve",
};
