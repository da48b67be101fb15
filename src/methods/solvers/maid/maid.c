/* MAID, an adaptively inexact first-order method for bilevel problems. Salehi, Mukherjee, Roberts
 * and Ehrhardt 2025, arXiv 2308.10098. Regularisation parameters theta are learned by descent on
 * f(theta) = g(x(theta)), where x(theta) minimises a strongly convex h(x, theta). Neither x nor the
 * gradient of f is ever exact: a bound on the error of the gradient decides how accurate both must
 * be, and a line search that accounts for the error decides how long a step may be.
 *
 * All in double, of which only the results are rounded. To add a problem: its h, g and constants
 * below, its data to DATA, its name to PROBLEMS. */
#include "methods/method.h"

#include "ballast/solve.h"

#define PROBLEMS "quadratic|logistic|tv"
#define DATA(IN)                                                                                   \
    IN(a1, "f32[N,M]", "optional", "quadratic: of the upper residual a1 x - b1")                   \
    IN(a2, "f32[N,M]", "optional", "quadratic: of the lower residual a2 x + a3 theta - b2")        \
    IN(a3, "f32[N,P]", "optional", "quadratic")                                                    \
    IN(b1, "f32[N]", "optional", "quadratic")                                                      \
    IN(b2, "f32[N]", "optional", "quadratic")                                                      \
    IN(xt, "f32[E,D]", "optional, rows > 0", "logistic: features for training")                    \
    IN(yt, "i32[E]", "optional, >= 0", "logistic: their classes")                                  \
    IN(xv, "f32[V,D]", "optional, rows > 0", "logistic: features for validation")                  \
    IN(yv, "i32[V]", "optional, >= 0", "logistic: their classes")                                  \
    IN(noisy, "f32[X...]", "optional, rows > 0", "tv: images [B,S,S]")                             \
    IN(clean, "f32[X...]", "optional, rows > 0", "tv: the same without noise")
#define PROBLEM(OPT) OPT(problem, BL_REQUIRED_WORD, PROBLEMS, "which h and g")
#define EACH(X)      X(a1) X(a2) X(a3) X(b1) X(b2) X(xt) X(yt) X(xv) X(yv) X(noisy) X(clean)

/* A problem and its data in double; what was not given is a bare number. */
typedef struct bilevel {
    const char *problem;
#define X(name) bl_tensor name;
    EACH(X)
#undef X
} bilevel;

static bl_tensor in_double(bl_tensor x)
{
    bool whole = !bl_is_number(x) && bl_type_of(x).dtype == BL_I32;
    return whole ? x : bl_cast(x, BL_F64);
}

/* From the fields f of a contract, and from the arrays f of a host function. */
#define TAKE(name)        .name = in_double(f->name),
#define OF_FIELDS        ((bilevel){.problem = f->problem, EACH(TAKE)})
#define CONST(name)       .name = constant_of(graph, &f->name),
#define OF_ARRAYS        ((bilevel){.problem = f->problem, EACH(CONST)})

static bl_tensor constant_of(bl_graph *graph, const bl_array *array)
{
    return array->data ? in_double(bl_constant(graph, array)) : bl_number(0);
}

/* --- what a problem needs --------------------------------------------------------------------- */

static bool is_given(bl_graph *graph, const bilevel *p, const char *name, bl_tensor x)
{
    if (!bl_is_number(x))
        return true;
    bl_poison(graph, "input %s is missing: problem %s needs it", name, p->problem);
    return false;
}

static bool has_shape(bl_graph *graph, const bilevel *p, const char *name, bl_tensor x,
                      bl_shape shape)
{
    bl_type type = bl_type_of(x);
    if (bl_is_number(x) || bl_shape_equal(type.shape, shape))
        return true;
    char got[BL_TYPE_TEXT], want[BL_TYPE_TEXT];
    bl_poison(graph, "%s must be %s for problem %s, not %s", name,
              bl_type_text((bl_type){BL_F32, shape}, want), p->problem,
              bl_type_text((bl_type){BL_F32, type.shape}, got));
    return false;
}

#define NEED(name) is_given(graph, p, #name, p->name)

/* Whether the data of the problem are there and x and theta (or a number) fit. */
static bool fits(bl_graph *graph, const bilevel *p, bl_tensor x, bl_tensor theta)
{
    bl_shape of_x = bl_type_of(x).shape;
    if (bl_is(p->problem, "quadratic"))
        return NEED(a1) && NEED(a2) && NEED(a3) && NEED(b1) && NEED(b2) &&
               has_shape(graph, p, "x", x, BL_SHAPE(bl_dim(p->a2, 1))) &&
               has_shape(graph, p, "theta", theta, BL_SHAPE(bl_dim(p->a3, 1)));
    if (bl_is(p->problem, "tv")) {
        if (!NEED(noisy) || !NEED(clean))
            return false;
        if (of_x.rank != 3)
            bl_poison(graph, "x must be images [B,S,S] for problem tv, not of rank %d", of_x.rank);
        return of_x.rank == 3 && has_shape(graph, p, "theta", theta, BL_SHAPE(2));
    }
    if (!NEED(xt) || !NEED(yt) || !NEED(xv) || !NEED(yv))
        return false;
    int64_t classes = of_x.rank == 2 ? of_x.dim[1] : 1;
    return has_shape(graph, p, "x", x, BL_SHAPE(bl_dim(p->xt, 1), classes)) &&
           has_shape(graph, p, "theta", theta, of_x);
}

/* --- the problems ----------------------------------------------------------------------------- */

/* sum sqrt(dx^2 + nu^2) + sum sqrt(dy^2 + nu^2) of images x [B,S,S]. */
static bl_tensor total_variation(bl_tensor x, bl_tensor nu)
{
    bl_tensor sum = bl_number(0);
    for (int axis = 1; axis <= 2; axis++) {
        int64_t size = bl_dim(x, axis);
        bl_tensor step = bl_sub(bl_slice_axis(x, axis, size > 0, size),
                                bl_slice_axis(x, axis, 0, size - (size > 0)));
        sum = bl_add(sum, bl_sum(bl_sqrt(bl_add(bl_square(step), bl_square(nu)))));
    }
    return sum;
}

/* h(x, theta), strongly convex in x. */
static bl_tensor lower(const bilevel *p, bl_tensor x, bl_tensor theta)
{
    if (bl_is(p->problem, "quadratic")) {
        bl_tensor r = bl_sub(bl_add(bl_matmul(p->a2, x), bl_matmul(p->a3, theta)), p->b2);
        return bl_mul(0.5, bl_inner(r, r));
    }
    if (bl_is(p->problem, "logistic")) {
        bl_tensor decay = bl_mul(0.5, bl_inner(bl_exp(theta), bl_square(x)));
        return bl_add(bl_cross_entropy(bl_matmul(p->xt, x), p->yt), decay);
    }
    bl_tensor r = bl_sub(x, p->noisy), weight = bl_exp(bl_pick(theta, 0, 0));
    bl_tensor variation = total_variation(x, bl_exp(bl_pick(theta, 0, 1)));
    bl_tensor sum = bl_add(bl_inner(r, r), bl_mul(weight, variation));
    return bl_div(bl_mul(0.5, sum), (double)bl_dim(x, 0));
}

/* g(x). */
static bl_tensor upper(const bilevel *p, bl_tensor x)
{
    if (bl_is(p->problem, "quadratic")) {
        bl_tensor r = bl_sub(bl_matmul(p->a1, x), p->b1);
        return bl_mul(0.5, bl_inner(r, r));
    }
    if (bl_is(p->problem, "logistic"))
        return bl_cross_entropy(bl_matmul(p->xv, x), p->yv);
    bl_tensor r = bl_sub(x, p->clean);
    return bl_div(bl_mul(0.5, bl_inner(r, r)), (double)bl_dim(x, 0));
}

/* The smallest and largest eigenvalue of a^T a. */
static void extremes(bl_tensor a, bl_tensor *smallest, bl_tensor *largest)
{
    bl_tensor w, v;
    bl_eigh(bl_dot(a, a, true, false), &w, &v);
    *smallest = bl_pick(w, 0, 0);
    *largest = bl_pick(w, 0, bl_dim(w, 0) - 1);
}

/* Half the largest eigenvalue of x^T x / n: how steep cross-entropy's gradient is. */
static bl_tensor steepest(bl_tensor x)
{
    bl_tensor smallest, largest;
    extremes(x, &smallest, &largest);
    return bl_div(largest, 2 * (double)bl_dim(x, 0));
}

/* mu and L: the Hessian of h in x has its eigenvalues in between. */
static void curvatures(const bilevel *p, bl_tensor x, bl_tensor theta, bl_tensor *mu,
                       bl_tensor *lip)
{
    theta = bl_stop_gradient(theta);
    if (bl_is(p->problem, "quadratic")) {
        extremes(p->a2, mu, lip);
    } else if (bl_is(p->problem, "logistic")) {
        *mu = bl_reduce_min(bl_exp(theta));
        *lip = bl_add(steepest(p->xt), bl_reduce_max(bl_exp(theta)));
    } else {
        double images = (double)bl_dim(x, 0);
        bl_tensor ratio = bl_exp(bl_sub(bl_pick(theta, 0, 0), bl_pick(theta, 0, 1)));
        *mu = bl_full_like(ratio, 1 / images);
        *lip = bl_div(bl_add(1, bl_mul(4, ratio)), images);
    }
}

/* The Lipschitz constant of grad g. */
static bl_tensor upper_curvature(bl_graph *graph, const bilevel *p, bl_tensor x)
{
    bl_tensor smallest, largest;
    if (bl_is(p->problem, "logistic"))
        return steepest(p->xv);
    if (bl_is(p->problem, "tv"))
        return bl_full(graph, BL_F64, BL_SCALAR, 1 / (double)bl_dim(x, 0));
    extremes(p->a1, &smallest, &largest);
    return largest;
}

#define MAID_LOWER(IN, OPT, OUT)                                                                   \
    IN(x, "f32[X...]", "grad", "lower variable")                                                   \
    IN(theta, "f32[T...]", "grad", "parameters to learn")                                          \
    DATA(IN)                                                                                       \
    PROBLEM(OPT)                                                                                   \
    OUT(h, "f32[]", "lower objective")                                                             \
    OUT(mu, "f32[]", "its strong convexity in x")                                                  \
    OUT(lip, "f32[]", "Lipschitz constant of its gradient in x")

BL_CONTRACT(maid_lower, MAID_LOWER, "the lower objective and its constants")
{
    bilevel p = OF_FIELDS;
    bl_tensor x = in_double(f->x), theta = in_double(f->theta), mu, lip;
    if (!fits(graph, &p, x, theta))
        return;
    curvatures(&p, x, theta, &mu, &lip);
    f->h = bl_to_f32(lower(&p, x, theta));
    f->mu = bl_to_f32(mu);
    f->lip = bl_to_f32(lip);
}

#define MAID_UPPER(IN, OPT, OUT)                                                                   \
    IN(x, "f32[X...]", "grad", "lower variable")                                                   \
    DATA(IN)                                                                                       \
    PROBLEM(OPT)                                                                                   \
    OUT(g, "f32[]", "upper objective")                                                             \
    OUT(lip, "f32[]", "Lipschitz constant of its gradient")

BL_CONTRACT(maid_upper, MAID_UPPER, "the upper objective and its constant")
{
    bilevel p = OF_FIELDS;
    bl_tensor x = in_double(f->x);
    if (!fits(graph, &p, x, bl_number(0)))
        return;
    f->g = bl_to_f32(upper(&p, x));
    f->lip = bl_to_f32(upper_curvature(graph, &p, x));
}

/* --- the lower solution ----------------------------------------------------------------------- */

/* Nesterov's accelerated gradient for strongly convex functions, in the form of Chambolle and Pock
 * 2016. */
typedef struct descent {
    const bilevel *p;
    bl_tensor theta, mu, lip, eps;
} descent;

enum { X_NOW, X_BEFORE, T, FAR, DESCENT_CARRIES };

static bl_tensor still_far(bl_graph *g, const bl_tensor *carry, void *context)
{
    (void)g, (void)context;
    return carry[FAR];
}

static void accelerated_step(bl_graph *g, const bl_tensor *carry, bl_tensor *next, void *context)
{
    (void)g;
    const descent *d = context;
    bl_tensor x = carry[X_NOW], before = carry[X_BEFORE], told = carry[T], slope;
    bl_tensor q = bl_div(d->mu, d->lip), c = bl_sub(1, bl_mul(q, bl_square(told)));
    bl_tensor root = bl_sqrt(bl_add(bl_square(c), bl_mul(4, bl_square(told))));
    bl_tensor t = bl_mul(0.5, bl_add(c, root)), apart = bl_lt(q, 1);
    bl_tensor divisor = bl_mul(t, bl_select(apart, bl_sub(1, q), bl_ones_like(q)));
    bl_tensor momentum = bl_div(bl_mul(bl_sub(told, 1), bl_sub(1, bl_mul(t, q))), divisor);
    bl_tensor beta = bl_select(apart, momentum, 0);

    bl_tensor z = bl_add(x, bl_mul(beta, bl_sub(x, before)));
    bl_grad(lower(d->p, z, d->theta), &z, 1, &slope);
    next[X_BEFORE] = x;
    next[X_NOW] = bl_sub(z, bl_div(slope, d->lip));
    next[T] = t;
    next[FAR] = bl_not(bl_lt(bl_div(bl_length(slope), d->mu), d->eps));
}

/* x within eps of the minimum of h(., theta), from `start` on; *steps were taken. */
static bl_tensor solve_lower(bl_graph *graph, const bilevel *p, bl_tensor start, bl_tensor theta,
                             bl_tensor eps, int64_t most, bl_tensor *steps)
{
    descent d = {.p = p, .theta = theta, .eps = eps};
    curvatures(p, start, theta, &d.mu, &d.lip);
    bl_tensor last[DESCENT_CARRIES];
    bl_tensor first[] = {start, start, bl_full(graph, BL_F64, BL_SCALAR, 0),
                         bl_full(graph, BL_BOOL, BL_SCALAR, 1)};
    *steps = bl_while(graph, most, still_far, accelerated_step, &d, first, DESCENT_CARRIES, last);
    return last[X_NOW];
}

#define MAID_LOWER_SOLVE(IN, OPT, OUT)                                                             \
    IN(x, "f32[X...]", "", "start")                                                                \
    IN(theta, "f32[T...]", "", "parameters")                                                       \
    DATA(IN)                                                                                       \
    PROBLEM(OPT)                                                                                   \
    OPT(eps, BL_REQUIRED, "[0,inf)", "bound on the distance from the minimum")                     \
    OPT(max_iter, 2000, ">= 0", "most iterations")                                                 \
    OUT(x, "f32[X...]", "within eps of the minimum, unless iters is max_iter")                     \
    OUT(iters, "i32[]", "iterations")

BL_CONTRACT_APART(maid_lower_solve, MAID_LOWER_SOLVE, "accelerated gradient with a certificate")
{
    bilevel p = OF_FIELDS;
    bl_tensor x = in_double(f->x), theta = in_double(f->theta);
    if (!fits(graph, &p, x, theta))
        return;
    f->out_x =
        bl_to_f32(solve_lower(graph, &p, x, theta, in_double(f->eps), f->max_iter, &f->out_iters));
}

/* --- the hypergradient ------------------------------------------------------------------------ */

/* grad_x h at x, and x and theta as variables of their own. */
static bl_tensor lower_slope(const bilevel *p, bl_tensor x, bl_tensor theta)
{
    bl_tensor slope;
    bl_grad(lower(p, x, theta), &x, 1, &slope);
    return slope;
}

/* x once more, in graph g: derivatives in the body of a loop are those in its own tensors. */
static bl_tensor own(bl_graph *g, bl_tensor x)
{
    return bl_add(x, bl_full(g, BL_F64, BL_SCALAR, 0));
}

/* H v = d/dx <grad_x h, v>; at: x, theta. */
static bl_tensor hessian_product(bl_graph *g, bl_tensor v, const bl_tensor *at, void *context)
{
    bl_tensor x = own(g, at[0]), product;
    bl_grad(bl_inner(lower_slope(context, x, own(g, at[1])), v), &x, 1, &product);
    return product;
}

/* J v, J = d(grad_x h)/d theta: d/dx <grad_theta h, v>; at: x, theta. */
static bl_tensor mixed_product(bl_graph *g, bl_tensor v, const bl_tensor *at, void *context)
{
    bl_tensor x = own(g, at[0]), theta = own(g, at[1]), slope, product;
    bl_grad(lower(context, x, theta), &theta, 1, &slope);
    bl_grad(bl_inner(slope, v), &x, 1, &product);
    return product;
}

typedef struct hypergradient {
    bl_tensor z, q, g, slope_length;
    bl_solution solution;
} hypergradient;

/* H q = grad g(x) up to delta, z = -J^T q. */
static hypergradient hypergradient_at(bilevel *p, bl_tensor x, bl_tensor theta, bl_tensor delta,
                                      int64_t most)
{
    hypergradient r;
    bl_tensor at[] = {x, theta}, slope, z;
    r.g = upper(p, x);
    bl_grad(r.g, &x, 1, &slope);
    r.slope_length = bl_length(slope);
    r.q = bl_stop_gradient(
        bl_conjugate_gradients(hessian_product, p, at, 2, slope, delta, most, &r.solution));
    bl_grad(bl_inner(lower_slope(p, x, theta), r.q), &theta, 1, &z);
    r.z = bl_neg(z);
    return r;
}

#define MAID_JACOBIAN_NORM(IN, OPT, OUT)                                                           \
    IN(x, "f32[X...]", "", "lower variable")                                                       \
    IN(theta, "f32[T...]", "", "parameters")                                                       \
    DATA(IN)                                                                                       \
    IN(v0, "f32[T...]", "finite", "random start")                                                  \
    PROBLEM(OPT)                                                                                   \
    OPT(iters, 20, ">= 1", "passes")                                                               \
    OUT(norm, "f32[]", "largest singular value of d(grad_x h)/d theta")

BL_CONTRACT(maid_jacobian_norm, MAID_JACOBIAN_NORM, "power iteration on the mixed derivatives")
{
    bilevel p = OF_FIELDS;
    bl_tensor at[] = {in_double(f->x), in_double(f->theta)}, v0 = in_double(f->v0);
    if (fits(graph, &p, at[0], at[1]))
        f->norm = bl_to_f32(bl_power_iteration(mixed_product, &p, at, 2, v0, f->iters));
}

/* --- programs on the host --------------------------------------------------------------------- */

/* A graph of a few variables in double, compiled. */
typedef struct compiled {
    bl_graph *graph;
    bl_program *program;
    bl_array out[8];
    int outs;
} compiled;

static bl_status compile(compiled *c, const bl_tensor *in, int ins, const bl_tensor *out, int outs)
{
    BL_TRY(bl_graph_status(c->graph));
    BL_TRY(bl_compile(bl_device_cpu(), in, ins, out, outs, NULL, &c->program));
    for (; c->outs < outs; c->outs++) {
        bl_type type = bl_type_of(out[c->outs]);
        BL_TRY(bl_array_new(type.dtype, type.shape, &c->out[c->outs]));
    }
    return BL_OK;
}

static void release(compiled *c)
{
    for (int i = 0; i < c->outs; i++)
        bl_array_free(&c->out[i]);
    bl_program_free(c->program);
    bl_graph_free(c->graph);
}

static bl_array view(bl_shape shape, double *data)
{
    return (bl_array){{BL_F64, shape}, data};
}

/* result = array in double, of `result`'s own memory. */
static bl_status widen(const bl_array *array, bl_array *result)
{
    BL_TRY(bl_array_new(BL_F64, array->type.shape, result));
    int64_t count = bl_array_count(array);
    for (int64_t i = 0; i < count; i++)
        bl_array_set(result, i, bl_array_get(array, i));
    return BL_OK;
}

static void narrow(const bl_array *array, bl_array *result)
{
    int64_t count = bl_array_count(array);
    for (int64_t i = 0; i < count; i++)
        bl_array_set(result, i, bl_array_get(array, i));
}

static bl_status refuse_curvature(void)
{
    return bl_fail(BL_INVALID, "<p, H p> is not positive for a direction p: the lower objective is "
                               "not strongly convex");
}

#define MAID_HYPERGRAD(IN, OPT, OUT)                                                               \
    IN(x, "f32[X...]", "", "solution of the lower problem")                                        \
    IN(theta, "f32[T...]", "", "parameters")                                                       \
    DATA(IN)                                                                                       \
    PROBLEM(OPT)                                                                                   \
    OPT(delta, BL_REQUIRED, "(0,inf)", "largest residual of the linear system")                    \
    OPT(max_iter, 2000, ">= 0", "most iterations of conjugate gradients")                          \
    OUT(z, "f32[T...]", "the gradient of g(x(theta)), inexact")                                    \
    OUT(q, "f32[X...]", "solution of H q = grad g")                                                \
    OUT(iters, "i32[]", "iterations")                                                              \
    OUT(residual, "f32[]", "of the linear system")

struct maid_hypergrad;
static bl_status evaluate_hypergradient(struct maid_hypergrad *f, compiled *c);

BL_HOST(maid_hypergrad, MAID_HYPERGRAD, "the inexact hypergradient")
{
    compiled c = {.graph = bl_graph_new()};
    bl_status status = c.graph ? evaluate_hypergradient(f, &c) : bl_fail(BL_NO_MEMORY, "no memory");
    release(&c);
    return status;
}

static bl_status evaluate_hypergradient(struct maid_hypergrad *f, compiled *c)
{
    bl_graph *graph = c->graph;
    bilevel p = OF_ARRAYS;
    bl_tensor x = bl_input(graph, "x", BL_F32, f->x.type.shape);
    bl_tensor theta = bl_input(graph, "theta", BL_F32, f->theta.type.shape);
    if (!fits(graph, &p, in_double(x), in_double(theta)))
        return bl_graph_status(graph);
    hypergradient h =
        hypergradient_at(&p, in_double(x), in_double(theta), bl_number(f->delta), f->max_iter);
    bl_tensor out[] = {bl_to_f32(h.z), bl_to_f32(h.q), h.solution.steps,
                       bl_to_f32(h.solution.residual), h.solution.good};
    BL_TRY(compile(c, (bl_tensor[]){x, theta}, 2, out, 5));
    BL_TRY(bl_run(c->program, (bl_array[]){f->x, f->theta}, c->out));
    if (bl_array_get(&c->out[4], 0) == 0)
        return refuse_curvature();
    narrow(&c->out[0], &f->z);
    narrow(&c->out[1], &f->q);
    narrow(&c->out[2], &f->iters);
    narrow(&c->out[3], &f->residual);
    return BL_OK;
}

/* --- the two tests ---------------------------------------------------------------------------- */

#define MAID_ERROR_BOUND(IN, OPT, OUT)                                                             \
    IN(eps, "f32[]", ">= 0", "error of x")                                                         \
    IN(delta, "f32[]", ">= 0", "residual of the linear system")                                    \
    IN(mu, "f32[]", "> 0", "strong convexity of h")                                                \
    IN(jnorm, "f32[]", ">= 0", "norm of J = d(grad_x h)/d theta")                                  \
    IN(gnorm, "f32[]", ">= 0", "norm of grad g at x")                                              \
    IN(lg, "f32[]", ">= 0", "Lipschitz constant of grad g")                                        \
    IN(lj, "f32[]", ">= 0", "Lipschitz constant of J in x")                                        \
    IN(lhinv, "f32[]", ">= 0", "Lipschitz constant of the inverse Hessian in x")                   \
    OUT(omega, "f32[]", "bound on the error of the hypergradient")

BL_CONTRACT(maid_error_bound, MAID_ERROR_BOUND, "how wrong a hypergradient may be")
{
    bl_tensor c = bl_add(bl_add(bl_div(bl_mul(f->lg, f->jnorm), f->mu),
                                bl_mul(bl_mul(f->lhinv, f->gnorm), f->jnorm)),
                         bl_div(bl_mul(f->lj, f->gnorm), f->mu));
    bl_tensor system = bl_mul(bl_div(f->jnorm, f->mu), f->delta);
    bl_tensor square = bl_mul(bl_div(bl_mul(f->lj, f->lg), f->mu), bl_square(f->eps));
    f->omega = bl_add(bl_add(bl_mul(c, f->eps), system), square);
}

#define MAID_DECREASE(IN, OPT, OUT)                                                                \
    IN(g_new, "f32[]", "", "upper objective after the step")                                       \
    IN(gnorm_new, "f32[]", ">= 0", "norm of its gradient there")                                   \
    IN(g_old, "f32[]", "", "upper objective before the step")                                      \
    IN(gnorm_old, "f32[]", ">= 0", "norm of its gradient there")                                   \
    IN(eps, "f32[]", ">= 0", "error of both x")                                                    \
    IN(lg, "f32[]", ">= 0", "Lipschitz constant of grad g")                                        \
    IN(alpha, "f32[]", ">= 0", "step size")                                                        \
    IN(znorm2, "f32[]", ">= 0", "squared norm of the hypergradient")                               \
    OPT(eta, 1e-4, "(0,1)", "share of the decrease that is asked for")                             \
    OPT(lam, 1.0, "(0,inf)", "its factor")                                                         \
    OPT(convex, 1, "flag", "g is convex")                                                          \
    OUT(psi, "f32[]", "the step is accepted where this is at most 0")

BL_CONTRACT(maid_decrease, MAID_DECREASE, "the test of sufficient decrease")
{
    bl_tensor bend = bl_mul(0.5, bl_mul(f->lg, bl_square(f->eps)));
    bl_tensor after = bl_add(bl_add(f->g_new, bl_mul(f->gnorm_new, f->eps)), bend);
    bl_tensor before = bl_sub(f->g_old, bl_mul(f->gnorm_old, f->eps));
    if (!f->convex)
        before = bl_sub(before, bend);
    bl_tensor asked = bl_mul(bl_mul(bl_mul(f->lam, f->eta), f->alpha), f->znorm2);
    f->psi = bl_add(bl_sub(after, before), asked);
}

/* --- the whole method ------------------------------------------------------------------------- */

#define MAID_RUN(IN, OPT, OUT)                                                                     \
    IN(x, "f32[X...]", "finite", "start of the lower variable")                                    \
    IN(theta, "f32[T...]", "finite", "start of the parameters")                                    \
    DATA(IN)                                                                                       \
    IN(v0, "f32[T...]", "finite", "random start of the power iterations")                          \
    PROBLEM(OPT)                                                                                   \
    OPT(iters, BL_REQUIRED_INTEGER, ">= 1", "outer iterations")                                    \
    OPT(eps0, BL_REQUIRED, "(0,inf)", "first accuracy of x")                                       \
    OPT(delta0, BL_REQUIRED, "(0,inf)", "first accuracy of the linear system")                     \
    OPT(beta0, BL_REQUIRED, "(0,inf)", "first step size")                                          \
    OPT(eta, 1e-4, "(0,1)", "share of the decrease that is asked for")                             \
    OPT(lam, 1.0, "(0,inf)", "its factor")                                                         \
    OPT(rho, 0.5, "(0,1)", "factor of the step after a failed trial")                              \
    OPT(rho_up, 10.0 / 9, "[1,inf)", "and after success")                                          \
    OPT(nu, 0.5, "(0,1)", "factor of the accuracies where they do not suffice")                    \
    OPT(nu_up, 1.25, "[1,inf)", "and after success")                                               \
    OPT(max_bt, 10, ">= 1", "trials of a line search, and one more a retry")                       \
    OPT(max_retry, 3, ">= 1", "line searches of an iteration")                                     \
    OPT(power, 20, ">= 1", "passes of the power iteration")                                        \
    OPT(max_lower, 5000, ">= 1", "most steps of a lower solve")                                    \
    OPT(lj, 0.0, "[0,inf)", "Lipschitz constant of J in x")                                        \
    OPT(lhinv, 0.0, "[0,inf)", "Lipschitz constant of the inverse Hessian in x")                   \
    OUT(theta, "f32[T...]", "learned parameters")                                                  \
    OUT(loss, "f32[iters]", "upper objective")                                                     \
    OUT(eps, "f32[iters]", "accuracy that was used")                                               \
    OUT(step, "f32[iters]", "step size, 0 where none was accepted")                                \
    OUT(stationary, "bool[]", "ended before the last iteration: stationary or out of precision")

enum { MOST_SYSTEM_STEPS = 2000 }; /* of conjugate gradients */
static const double FLOOR = 1e-12; /* of eps, relative to the size of x */

/* What a run has: programs, and where it stands. */
typedef struct search {
    compiled solve, slope;
    bl_array x, theta, trial;
    double eps, delta, beta, lg;
    double g, slope_length; /* of the upper objective at x */
    double z_square;
} search;

struct maid_run;
static bl_status begin(struct maid_run *f, search *s);
static bl_status descend(struct maid_run *f, search *s);

BL_HOST_APART(maid_run, MAID_RUN, "descent on the upper objective with adaptive accuracy")
{
    search s = {.eps = f->eps0, .delta = f->delta0, .beta = f->beta0};
    bl_status status = begin(f, &s);
    if (status == BL_OK)
        status = descend(f, &s);
    if (status == BL_OK)
        narrow(&s.theta, &f->out_theta);
    release(&s.solve);
    release(&s.slope);
    bl_array_free(&s.x);
    bl_array_free(&s.theta);
    bl_array_free(&s.trial);
    return status;
}

/* (x, theta, eps) -> x, g(x), |grad g(x)|. */
static bl_status build_solve(const struct maid_run *f, compiled *c)
{
    bl_graph *graph = c->graph;
    bilevel p = OF_ARRAYS;
    bl_tensor x = bl_input(graph, "x", BL_F64, f->x.type.shape), steps, slope;
    bl_tensor theta = bl_input(graph, "theta", BL_F64, f->theta.type.shape);
    bl_tensor eps = bl_input(graph, "eps", BL_F64, BL_SCALAR);
    if (!fits(graph, &p, x, theta))
        return bl_graph_status(graph);
    bl_tensor solution =
        bl_stop_gradient(solve_lower(graph, &p, x, theta, eps, f->max_lower, &steps));
    bl_tensor value = upper(&p, solution);
    bl_grad(value, &solution, 1, &slope);
    return compile(c, (bl_tensor[]){x, theta, eps}, 3,
                   (bl_tensor[]){solution, value, bl_length(slope)}, 3);
}

enum { OUT_Z, OUT_GOOD, OUT_JACOBIAN, OUT_MU, OUT_LG, OUT_LENGTH, SLOPE_OUTPUTS };

/* (x, theta, delta) -> z and what the bound on its error is made of. */
static bl_status build_slope(const struct maid_run *f, compiled *c)
{
    bl_graph *graph = c->graph;
    bilevel p = OF_ARRAYS;
    bl_tensor x = bl_input(graph, "x", BL_F64, f->x.type.shape), mu, lip;
    bl_tensor theta = bl_input(graph, "theta", BL_F64, f->theta.type.shape), at[] = {x, theta};
    bl_tensor delta = bl_input(graph, "delta", BL_F64, BL_SCALAR);
    hypergradient h = hypergradient_at(&p, x, theta, delta, MOST_SYSTEM_STEPS);
    curvatures(&p, x, theta, &mu, &lip);
    bl_tensor out[SLOPE_OUTPUTS] = {
        [OUT_Z] = h.z,
        [OUT_GOOD] = h.solution.good,
        [OUT_JACOBIAN] =
            bl_power_iteration(mixed_product, &p, at, 2, constant_of(graph, &f->v0), f->power),
        [OUT_MU] = mu,
        [OUT_LG] = upper_curvature(graph, &p, x),
        [OUT_LENGTH] = h.slope_length};
    return compile(c, (bl_tensor[]){x, theta, delta}, 3, out, SLOPE_OUTPUTS);
}

static bl_status begin(struct maid_run *f, search *s)
{
    s->solve.graph = bl_graph_new();
    s->slope.graph = bl_graph_new();
    if (!s->solve.graph || !s->slope.graph)
        return bl_fail(BL_NO_MEMORY, "no memory for two graphs");
    BL_TRY(build_solve(f, &s->solve));
    BL_TRY(build_slope(f, &s->slope));
    BL_TRY(widen(&f->x, &s->x));
    BL_TRY(widen(&f->theta, &s->theta));
    return widen(&f->theta, &s->trial);
}

/* solve's outputs become the lower solution for theta, from the x that was accepted last. */
static bl_status solve_at(search *s, bl_array theta)
{
    return bl_run(s->solve.program, (bl_array[]){s->x, theta, view(BL_SCALAR, &s->eps)},
                  s->solve.out);
}

/* The solution that was found becomes x. */
static void accept_solution(search *s)
{
    narrow(&s->solve.out[0], &s->x);
    s->g = bl_array_get(&s->solve.out[1], 0);
    s->slope_length = bl_array_get(&s->solve.out[2], 0);
}

static double size_of(const bl_array *x)
{
    double sum = 0;
    int64_t count = bl_array_count(x);
    for (int64_t i = 0; i < count; i++)
        sum += bl_array_get(x, i) * bl_array_get(x, i);
    return sqrt(sum);
}

/* x and the hypergradient z, as accurate as makes -z a direction of descent whatever the error is;
 * false where that would take more than the precision there is. */
static bl_status find_direction(struct maid_run *f, search *s, bool *found)
{
    const bl_array *out = s->slope.out;
    for (;;) {
        BL_TRY(solve_at(s, s->theta));
        accept_solution(s);
        BL_TRY(bl_run(s->slope.program, (bl_array[]){s->x, s->theta, view(BL_SCALAR, &s->delta)},
                      out));
        if (bl_array_get(&out[OUT_GOOD], 0) == 0)
            return refuse_curvature();
        double mu = bl_array_get(&out[OUT_MU], 0), jnorm = bl_array_get(&out[OUT_JACOBIAN], 0);
        double gnorm = bl_array_get(&out[OUT_LENGTH], 0), z = size_of(&out[OUT_Z]);
        s->lg = bl_array_get(&out[OUT_LG], 0);
        double c = s->lg * jnorm / mu + f->lhinv * gnorm * jnorm + f->lj * gnorm / mu;
        double omega = c * s->eps + jnorm / mu * s->delta + f->lj * s->lg / mu * s->eps * s->eps;
        s->z_square = z * z;
        *found = omega <= (1 - f->eta) * z;
        if (*found || !(s->eps >= FLOOR * fmax(1, size_of(&s->x))))
            return BL_OK;
        s->eps *= f->nu;
        s->delta *= f->nu;
    }
}

/* The first of beta, beta rho, .. that surely lowers f; 0 where none of `trials` does. */
static bl_status search_line(struct maid_run *f, search *s, int64_t trials, double *step)
{
    int64_t count = bl_array_count(&s->theta);
    *step = s->beta;
    for (int64_t i = 0; i < trials; i++, *step *= f->rho) {
        for (int64_t k = 0; k < count; k++)
            bl_f64(&s->trial)[k] =
                bl_f64(&s->theta)[k] - *step * bl_array_get(&s->slope.out[OUT_Z], k);
        BL_TRY(solve_at(s, s->trial));
        double g = bl_array_get(&s->solve.out[1], 0);
        double length_new = bl_array_get(&s->solve.out[2], 0);
        double psi = g + length_new * s->eps + s->lg * s->eps * s->eps / 2 - s->g +
                     s->slope_length * s->eps + f->lam * f->eta * *step * s->z_square;
        if (psi <= 0) {
            narrow(&s->trial, &s->theta);
            accept_solution(s);
            return BL_OK;
        }
    }
    *step = 0;
    return BL_OK;
}

/* One outer iteration; *step is 0 where theta stays. */
static bl_status iterate(struct maid_run *f, search *s, double *step, double *eps, bool *found)
{
    for (int64_t retry = 0; retry < f->max_retry; retry++) {
        *step = 0;
        BL_TRY(find_direction(f, s, found));
        *eps = s->eps;
        if (!*found)
            return BL_OK;
        BL_TRY(search_line(f, s, f->max_bt + retry, step));
        double factor = *step > 0 ? f->nu_up : f->nu;
        if (*step > 0)
            s->beta = *step * f->rho_up;
        s->eps *= factor;
        s->delta *= factor;
        if (*step > 0)
            return BL_OK;
        *eps = s->eps;
    }
    return BL_OK;
}

static bl_status descend(struct maid_run *f, search *s)
{
    bool found = true;
    double step = 0, eps = 0;
    for (int64_t k = 0; k < f->iters; k++) {
        step = 0;
        if (found) /* else nothing will change */
            BL_TRY(iterate(f, s, &step, &eps, &found));
        bl_array_set(&f->out_loss, k, s->g);
        bl_array_set(&f->out_eps, k, eps);
        bl_array_set(&f->out_step, k, step);
    }
    bl_array_set(&f->out_stationary, 0, !found);
    return BL_OK;
}

const bl_method bl_maid = {
    .slug = "maid",
    .family = "solvers",
    .paper = "Salehi, Mukherjee, Roberts and Ehrhardt 2025, arXiv 2308.10098",
    .summary = "learns regularisation parameters by descent that chooses its own accuracy",
    .when = "For many differentiable regularisation parameters with a convex inner problem. It "
            "needs no schedule of accuracies or steps; a run costs some hundred inner solves.",
    .example = "ballast show maid_run",
    .functions = {&maid_run_contract, &maid_lower_contract, &maid_upper_contract,
                  &maid_lower_solve_contract, &maid_hypergrad_contract,
                  &maid_jacobian_norm_contract, &maid_error_bound_contract,
                  &maid_decrease_contract},
};
