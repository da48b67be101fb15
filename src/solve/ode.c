/* Adaptive solution of ordinary differential equations: a loop on the host over a compiled step.
 *
 * Time, step size and the controller are doubles here, whatever the state's dtype. Accepted steps
 * are kept, each with the state that it started from, and the gradient goes back over them: every
 * step is computed again from its state and differentiated, so memory grows with the states only.
 * A step's first stage is the last stage of the step before (it is not evaluated twice); going
 * back, it is part of the step that starts with it, which gives the same derivative. */
#define BL_KEEP_PLACE
#include "ballast/solve.h"

#include <math.h>
#include <string.h>

#include "base/base.h"

/* The controller of Hairer and Wanner in the constants of Rackauckas' libraries. */
#define BETA1     (7.0 / 50)
#define BETA2     (2.0 / 25)
#define SAFETY    0.9
#define MOST_GROW 10.0
#define MOST_CUT  5.0
#define FIRST_ERROR                                                                                \
    1e-4 /* taken for the error before the first step, and for smaller ones after                  \
          */

enum { DEFAULT_MOST_STEPS = 10000 };

/* Inputs of the programs, the parameters behind them. */
enum { SLOPE_Z, SLOPE_T, SLOPE_INPUTS };
enum { STEP_Z, STEP_SLOPE, STEP_T, STEP_DT, STEP_INPUTS };
enum { STEP_Z_NEXT, STEP_SLOPE_NEXT, STEP_ERROR, STEP_STIFFNESS, STEP_OUTPUTS };
enum { BACK_Z, BACK_T, BACK_DT, BACK_DZ, BACK_DERROR, BACK_DSTIFFNESS, BACK_INPUTS };

struct bl_ode {
    const bl_device *device;
    bl_ode_field *field;
    void *context;
    bl_type state;
    bl_type *parameter;
    int parameters;
    bl_ode_options options;
    bl_program *slope, *step, *back; /* back: compiled for the first gradient */

    bl_array z, z_next, k, k_next, t, dt, error, stiffness; /* of the step under way */
    bl_array *argument, *result;                            /* scratch lists for bl_run */

    bl_ode_accepted *accepted;
    bl_array *start; /* the state before each accepted step; kept from solve to solve */
    size_t accepted_capacity, starts, start_capacity;
    bl_ode_report report;
};

static bl_type scalar_of(const bl_ode *ode)
{
    return (bl_type){ode->state.dtype, BL_SCALAR};
}

static bl_tensor input_of(bl_graph *g, const char *name, bl_type type)
{
    return bl_input(g, name, type.dtype, type.shape);
}

/* --- programs -----------------------------------------------------------------------------------
 */

/* A graph under construction: the program's inputs, the parameters among them. */
typedef struct plan {
    bl_graph *graph;
    bl_tensor *input, *parameter;
    int inputs;
} plan;

/* `own` inputs and, behind them, the parameters, which are made here. */
static bl_status plan_begin(const bl_ode *ode, int own, plan *p)
{
    size_t bytes = (size_t)(own + 2 * ode->parameters) * sizeof(bl_tensor);
    *p = (plan){.graph = bl_graph_new(), .input = bl_alloc(bytes), .inputs = own + ode->parameters};
    if (!p->graph || !p->input)
        return bl_no_memory(bytes);
    p->parameter = p->input + own;
    for (int i = 0; i < ode->parameters; i++)
        p->parameter[i] = input_of(p->graph, "parameter", ode->parameter[i]);
    return BL_OK;
}

static void plan_end(plan *p)
{
    bl_graph_free(p->graph);
    bl_release(p->input);
}

static bl_tensor field_at(const bl_ode *ode, const plan *p, bl_tensor z, bl_tensor t)
{
    bl_tensor slope = ode->field(z, t, p->parameter, ode->context);
    if (!bl_is_poison(slope) && !bl_type_equal(bl_type_of(slope), ode->state)) {
        char got[BL_TYPE_TEXT], want[BL_TYPE_TEXT];
        return bl_poison(p->graph, "the field gives %s, expected the state's type %s",
                         bl_type_text(bl_type_of(slope), got), bl_type_text(ode->state, want));
    }
    return slope;
}

static bl_status compile_slope(bl_ode *ode)
{
    plan p;
    bl_status status = plan_begin(ode, SLOPE_INPUTS, &p);
    if (status == BL_OK) {
        p.input[SLOPE_Z] = input_of(p.graph, "z", ode->state);
        p.input[SLOPE_T] = input_of(p.graph, "t", scalar_of(ode));
        bl_tensor slope = field_at(ode, &p, p.input[SLOPE_Z], p.input[SLOPE_T]);
        status = bl_compile(ode->device, p.input, p.inputs, &slope, 1, NULL, &ode->slope);
    }
    plan_end(&p);
    return status;
}

static bl_ode_step step_of(const bl_ode *ode, const plan *p, bl_tensor z, bl_tensor slope,
                           bl_tensor t, bl_tensor dt)
{
    return bl_tsit5_step(ode->field, ode->context, p->parameter, z, slope, t, dt,
                         ode->options.relative, ode->options.absolute);
}

static bl_status compile_step(bl_ode *ode)
{
    plan p;
    bl_status status = plan_begin(ode, STEP_INPUTS, &p);
    if (status == BL_OK) {
        p.input[STEP_Z] = input_of(p.graph, "z", ode->state);
        p.input[STEP_SLOPE] = input_of(p.graph, "slope", ode->state);
        p.input[STEP_T] = input_of(p.graph, "t", scalar_of(ode));
        p.input[STEP_DT] = input_of(p.graph, "dt", scalar_of(ode));
        bl_ode_step s = step_of(ode, &p, p.input[STEP_Z], p.input[STEP_SLOPE], p.input[STEP_T],
                                p.input[STEP_DT]);
        const bl_tensor output[STEP_OUTPUTS] = {s.z, s.slope, s.error, s.stiffness};
        status = bl_compile(ode->device, p.input, p.inputs, output, STEP_OUTPUTS, NULL, &ode->step);
    }
    plan_end(&p);
    return status;
}

/* The adjoint of a step: dz, dp <- dz/dz' dz + .., dp + dz'/dp dz + .., in place. The sums so far
 * are inputs behind the parameters. */
static bl_status build_back(const bl_ode *ode, plan *p, bl_tensor *output)
{
    bl_tensor *in = p->input, *sum = p->parameter + ode->parameters;
    in[BACK_Z] = input_of(p->graph, "z", ode->state);
    in[BACK_T] = input_of(p->graph, "t", scalar_of(ode));
    in[BACK_DT] = input_of(p->graph, "dt", scalar_of(ode));
    in[BACK_DZ] = input_of(p->graph, "dz", ode->state);
    in[BACK_DERROR] = input_of(p->graph, "derror", scalar_of(ode));
    in[BACK_DSTIFFNESS] = input_of(p->graph, "dstiffness", scalar_of(ode));
    for (int i = 0; i < ode->parameters; i++)
        sum[i] = input_of(p->graph, "sum", ode->parameter[i]);
    bl_tensor slope = field_at(ode, p, in[BACK_Z], in[BACK_T]);
    bl_ode_step s = step_of(ode, p, in[BACK_Z], slope, in[BACK_T], in[BACK_DT]);

    size_t bytes = (size_t)(ode->parameters + 1) * sizeof(bl_tensor);
    bl_tensor *x = bl_alloc(bytes);
    if (!x)
        return bl_no_memory(bytes);
    x[0] = in[BACK_Z];
    for (int i = 0; i < ode->parameters; i++)
        x[i + 1] = p->parameter[i];
    bl_vjp((const bl_tensor[]){s.z, s.error, s.stiffness},
           (const bl_tensor[]){in[BACK_DZ], in[BACK_DERROR], in[BACK_DSTIFFNESS]}, 3, x,
           ode->parameters + 1, output);
    for (int i = 0; i < ode->parameters; i++)
        output[i + 1] = bl_add(sum[i], output[i + 1]);
    bl_release(x);
    return bl_graph_status(p->graph);
}

static bl_status compile_back(bl_ode *ode)
{
    int P = ode->parameters;
    size_t bytes = (size_t)(P + 1) * (sizeof(bl_tensor) + sizeof(bl_donation));
    bl_tensor *output = bl_alloc(bytes);
    plan p;
    bl_status status = plan_begin(ode, BACK_INPUTS, &p);
    p.inputs += P;
    if (!output && status == BL_OK)
        status = bl_no_memory(bytes);
    if (status == BL_OK)
        status = build_back(ode, &p, output);
    if (status == BL_OK) {
        bl_donation *donation = (bl_donation *)(output + P + 1);
        donation[0] = (bl_donation){BACK_DZ, 0};
        for (int i = 0; i < P; i++)
            donation[i + 1] = (bl_donation){BACK_INPUTS + P + i, i + 1};
        bl_compile_options options = {.donation = donation, .donations = P + 1};
        status = bl_compile(ode->device, p.input, p.inputs, output, P + 1, &options, &ode->back);
    }
    plan_end(&p);
    bl_release(output);
    return status;
}

/* --- life
 * ----------------------------------------------------------------------------------------- */

static bl_status check_options(bl_type state, const bl_ode_options *o)
{
    char text[BL_TYPE_TEXT];
    if (!bl_dtype_is_float(state.dtype))
        return bl_fail(BL_INVALID, "the state is %s, expected f32 or f64",
                       bl_type_text(state, text));
    if (!(o->relative > 0 && o->absolute > 0) || isinf(o->relative) || isinf(o->absolute))
        return bl_fail(BL_INVALID,
                       "the tolerances are %g (relative) and %g (absolute), expected "
                       "positive numbers",
                       o->relative, o->absolute);
    if (!(o->first_step >= 0) || isinf(o->first_step))
        return bl_fail(BL_INVALID, "the first step is %g, expected >= 0", o->first_step);
    if (o->most_steps < 0)
        return bl_fail(BL_INVALID, "most_steps is %lld, expected >= 0", (long long)o->most_steps);
    return BL_OK;
}

static bl_status allocate(bl_ode *ode)
{
    size_t lists = (size_t)(BACK_INPUTS + 2 * ode->parameters), bytes = lists * sizeof(bl_array);
    ode->argument = bl_alloc(bytes);
    ode->result = bl_alloc(bytes);
    if (!ode->argument || !ode->result)
        return bl_no_memory(2 * bytes);
    bl_array *const state[] = {&ode->z, &ode->z_next, &ode->k, &ode->k_next};
    for (int i = 0; i < 4; i++)
        BL_TRY(bl_array_new(ode->state.dtype, ode->state.shape, state[i]));
    bl_array *const scalar[] = {&ode->t, &ode->dt, &ode->error, &ode->stiffness};
    for (int i = 0; i < 4; i++)
        BL_TRY(bl_array_new(ode->state.dtype, BL_SCALAR, scalar[i]));
    return BL_OK;
}

bl_status bl_ode_new(const bl_device *device, bl_ode_field *field, void *context, bl_type state,
                     const bl_type *parameter, int parameters, bl_ode_options options, bl_ode **out)
{
    *out = NULL;
    BL_TRY(check_options(state, &options));
    size_t bytes = (size_t)parameters * sizeof *parameter;
    bl_ode *ode = bl_alloc(sizeof *ode);
    bl_type *copy = bl_alloc(bytes + 1);
    if (!ode || !copy) {
        bl_release(ode);
        bl_release(copy);
        return bl_no_memory(sizeof *ode + bytes);
    }
    if (parameters > 0)
        memcpy(copy, parameter, bytes);
    if (options.most_steps == 0)
        options.most_steps = DEFAULT_MOST_STEPS;
    *ode = (bl_ode){.device = device,
                    .field = field,
                    .context = context,
                    .state = state,
                    .parameter = copy,
                    .parameters = parameters,
                    .options = options};
    bl_status status = allocate(ode);
    if (status == BL_OK)
        status = compile_slope(ode);
    if (status == BL_OK)
        status = compile_step(ode);
    if (status != BL_OK)
        bl_ode_free(ode);
    else
        *out = ode;
    return status;
}

void bl_ode_free(bl_ode *ode)
{
    if (!ode)
        return;
    bl_array *const own[] = {&ode->z, &ode->z_next, &ode->k,     &ode->k_next,
                             &ode->t, &ode->dt,     &ode->error, &ode->stiffness};
    for (int i = 0; i < 8; i++)
        bl_array_free(own[i]);
    for (size_t i = 0; i < ode->starts; i++)
        bl_array_free(&ode->start[i]);
    bl_program_free(ode->slope);
    bl_program_free(ode->step);
    bl_program_free(ode->back);
    bl_release(ode->parameter);
    bl_release(ode->argument);
    bl_release(ode->result);
    bl_release(ode->accepted);
    bl_release(ode->start);
    bl_release(ode);
}

/* --- forwards
 * -------------------------------------------------------------------------------------- */

static void copy_values(const bl_array *from, bl_array *to)
{
    memcpy(to->data, from->data, bl_type_bytes(from->type));
}

static void swap_arrays(bl_array *a, bl_array *b)
{
    bl_array keep = *a;
    *a = *b;
    *b = keep;
}

static bool all_finite(const bl_array *a)
{
    int64_t count = bl_array_count(a);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(bl_array_get(a, i)))
            return false;
    return true;
}

static bl_status stiff_or_diverging(double t, const char *what)
{
    return bl_fail(BL_INVALID,
                   "%s at t = %g: stiff or diverging, try regularisation or looser tolerances",
                   what, t);
}

/* slope <- f(z, t) */
static bl_status evaluate_slope(bl_ode *ode, const bl_array *parameter, const bl_array *z, double t,
                                bl_array *slope)
{
    bl_array_set(&ode->t, 0, t);
    ode->argument[SLOPE_Z] = *z;
    ode->argument[SLOPE_T] = ode->t;
    for (int i = 0; i < ode->parameters; i++)
        ode->argument[SLOPE_INPUTS + i] = parameter[i];
    ode->report.evaluations++;
    return bl_run(ode->slope, ode->argument, slope);
}

/* z_next, k_next, error and stiffness of a step of size dt from z, whose slope is k. */
static bl_status evaluate_step(bl_ode *ode, const bl_array *parameter, double t, double dt)
{
    bl_array_set(&ode->t, 0, t);
    bl_array_set(&ode->dt, 0, dt);
    ode->argument[STEP_Z] = ode->z;
    ode->argument[STEP_SLOPE] = ode->k;
    ode->argument[STEP_T] = ode->t;
    ode->argument[STEP_DT] = ode->dt;
    for (int i = 0; i < ode->parameters; i++)
        ode->argument[STEP_INPUTS + i] = parameter[i];
    const bl_array out[STEP_OUTPUTS] = {ode->z_next, ode->k_next, ode->error, ode->stiffness};
    ode->report.evaluations += 6;
    return bl_run(ode->step, ode->argument, out);
}

/* rms((v - w) / (absolute + relative |z|)); w may be NULL. */
static double scaled_norm(const bl_ode *ode, const bl_array *v, const bl_array *w)
{
    int64_t count = bl_array_count(v);
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double scale =
            ode->options.absolute + ode->options.relative * fabs(bl_array_get(&ode->z, i));
        double x = (bl_array_get(v, i) - (w ? bl_array_get(w, i) : 0)) / scale;
        sum += x * x;
    }
    return count ? sqrt(sum / (double)count) : 0;
}

/* A first step of which the error should be about 1, from the sizes of z, its slope, and how much
 * the slope changes over a hundredth of the way that z would take to double. */
static bl_status choose_first_step(bl_ode *ode, const bl_array *parameter, double t0, double t1,
                                   double *dt)
{
    double d0 = scaled_norm(ode, &ode->z, NULL), d1 = scaled_norm(ode, &ode->k, NULL);
    double h0 = fmin(d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1, t1 - t0);
    int64_t count = bl_array_count(&ode->z);
    for (int64_t i = 0; i < count; i++)
        bl_array_set(&ode->z_next, i, bl_array_get(&ode->z, i) + h0 * bl_array_get(&ode->k, i));
    BL_TRY(evaluate_slope(ode, parameter, &ode->z_next, t0 + h0, &ode->k_next));
    double d2 = scaled_norm(ode, &ode->k_next, &ode->k) / h0, m = fmax(d1, d2);
    double h1 = m <= 1e-15 ? fmax(1e-6, 1e-3 * h0) : pow(0.01 / m, 0.2);
    *dt = fmin(fmin(100 * h0, h1), t1 - t0);
    return BL_OK;
}

/* Room for one more step, and the state before it. */
static bl_status make_room(bl_ode *ode)
{
    size_t n = (size_t)ode->report.accepted;
    if (!BL_GROW(ode->accepted, n, ode->accepted_capacity))
        return bl_no_memory(sizeof *ode->accepted);
    if (n < ode->starts)
        return BL_OK;
    if (!BL_GROW(ode->start, ode->starts, ode->start_capacity))
        return bl_no_memory(sizeof *ode->start);
    BL_TRY(bl_array_new(ode->state.dtype, ode->state.shape, &ode->start[n]));
    ode->starts++;
    return BL_OK;
}

static bl_status accept(bl_ode *ode, double t, double dt, double error)
{
    BL_TRY(make_room(ode));
    int64_t n = ode->report.accepted++;
    ode->accepted[n] = (bl_ode_accepted){t, dt, error, bl_array_get(&ode->stiffness, 0)};
    copy_values(&ode->z, &ode->start[n]);
    swap_arrays(&ode->z, &ode->z_next);
    swap_arrays(&ode->k, &ode->k_next);
    return BL_OK;
}

/* Steps from t0 to t1; dt is the first one's size. */
static bl_status march(bl_ode *ode, const bl_array *parameter, double t0, double t1, double dt)
{
    double t = t0, before = FIRST_ERROR;
    while (t < t1) {
        if (ode->report.accepted + ode->report.rejected >= ode->options.most_steps)
            return bl_fail(BL_INVALID,
                           "%lld steps lead to t = %g only, of %g: stiff or diverging, try "
                           "regularisation or looser tolerances",
                           (long long)ode->options.most_steps, t, t1);
        bool last = dt >= t1 - t;
        double h = last ? t1 - t : dt;
        if (!(t + h > t))
            return stiff_or_diverging(t, "steps have become too small");
        BL_TRY(evaluate_step(ode, parameter, t, h));
        double error = bl_array_get(&ode->error, 0), power = pow(error, BETA1);
        if (error <= 1) {
            double q = power / pow(before, BETA2) / SAFETY;
            BL_TRY(accept(ode, t, h, error));
            t = last ? t1 : t + h;
            before = fmax(error, FIRST_ERROR);
            dt = h / fmin(fmax(q, 1 / MOST_GROW), MOST_CUT);
        } else { /* a NaN too */
            ode->report.rejected++;
            dt = h / fmin(MOST_CUT, power / SAFETY);
        }
    }
    return BL_OK;
}

static bl_status check_array(const bl_array *array, bl_type type, const char *what)
{
    char got[BL_TYPE_TEXT], want[BL_TYPE_TEXT];
    if (!bl_type_equal(array->type, type))
        return bl_fail(BL_INVALID, "%s is %s, expected %s", what, bl_type_text(array->type, got),
                       bl_type_text(type, want));
    return BL_OK;
}

bl_status bl_ode_solve(bl_ode *ode, const bl_array *z0, const bl_array *parameter, double t0,
                       double t1, bl_array *z1, bl_ode_report *report)
{
    ode->report = (bl_ode_report){0};
    BL_TRY(check_array(z0, ode->state, "z0"));
    BL_TRY(check_array(z1, ode->state, "z1"));
    if (!(t1 > t0) || !isfinite(t1 - t0))
        return bl_fail(BL_INVALID, "t1 is %g and t0 %g, expected finite t0 < t1", t1, t0);
    if (!all_finite(z0))
        return stiff_or_diverging(t0, "the state is not finite");
    copy_values(z0, &ode->z);
    BL_TRY(evaluate_slope(ode, parameter, &ode->z, t0, &ode->k));
    if (!all_finite(&ode->k))
        return stiff_or_diverging(t0, "the field is not finite");
    double dt = ode->options.first_step;
    if (!(dt > 0))
        BL_TRY(choose_first_step(ode, parameter, t0, t1, &dt));
    bl_status status = march(ode, parameter, t0, t1, dt);
    if (status != BL_OK) {
        ode->report.accepted = 0; /* nothing to go back over */
        return status;
    }
    copy_values(&ode->z, z1);
    ode->report.step = ode->accepted;
    if (report)
        *report = ode->report;
    return BL_OK;
}

/* --- backwards
 * -------------------------------------------------------------------------------------- */

/* Adds step n's part to dz, which moves from its end to its start, and to dparameter. */
static bl_status step_back(bl_ode *ode, const bl_array *parameter, int64_t n, double derror,
                           double dstiffness, bl_array *dz, bl_array *dparameter)
{
    int P = ode->parameters;
    bl_array *in = ode->argument, *out = ode->result;
    bl_array_set(&ode->t, 0, ode->accepted[n].t);
    bl_array_set(&ode->dt, 0, ode->accepted[n].dt);
    bl_array_set(&ode->error, 0, derror);
    bl_array_set(&ode->stiffness, 0, dstiffness);
    in[BACK_Z] = ode->start[n];
    in[BACK_T] = ode->t;
    in[BACK_DT] = ode->dt;
    in[BACK_DZ] = out[0] = *dz;
    in[BACK_DERROR] = ode->error;
    in[BACK_DSTIFFNESS] = ode->stiffness;
    for (int i = 0; i < P; i++) {
        in[BACK_INPUTS + i] = parameter[i];
        in[BACK_INPUTS + P + i] = out[i + 1] = dparameter[i];
    }
    return bl_run(ode->back, in, out);
}

bl_status bl_ode_gradient(bl_ode *ode, const bl_array *parameter, const bl_array *dz1,
                          const double *derror, const double *dstiffness, bl_array *dz0,
                          bl_array *dparameter)
{
    if (ode->report.accepted == 0)
        return bl_fail(BL_INVALID, "no solve has succeeded whose gradient this could be");
    BL_TRY(check_array(dz1, ode->state, "dz1"));
    BL_TRY(check_array(dz0, ode->state, "dz0"));
    for (int i = 0; i < ode->parameters; i++)
        BL_TRY(check_array(&dparameter[i], ode->parameter[i], "a parameter's gradient"));
    if (!ode->back)
        BL_TRY(compile_back(ode));
    copy_values(dz1, dz0);
    for (int i = 0; i < ode->parameters; i++)
        memset(dparameter[i].data, 0, bl_type_bytes(dparameter[i].type));
    for (int64_t n = ode->report.accepted - 1; n >= 0; n--)
        BL_TRY(step_back(ode, parameter, n, derror ? derror[n] : 0, dstiffness ? dstiffness[n] : 0,
                         dz0, dparameter));
    return BL_OK;
}
