/* Hessian alignment. Hemati, Zhang, Estiri, Chen, ICCV 2023, arXiv 2308.11778. Several training
 * domains, one label, a test domain never seen. Where gradients and Hessians of the linear
 * classifier agree across domains, the loss looks the same from everywhere and features transfer.
 * Two penalties, on products of Hessian and gradient and on the Hessian's diagonal, and the methods
 * of which the paper shows that they align a part: IRM, V-REx, IGA, Fish, Fishr, CORAL.
 *
 * Of the loss of logits o = G theta^T with G = [phi, 1], theta [C,F+1], all derivatives are known:
 * with r = dl/do, and A = d^2 l / do^2 of a row, gradient g = mean r^T G and H theta' = mean q^T G
 * with q = A s, s = G theta'^T. So a product costs two matrix products, and its gradient is an
 * ordinary one. Outputs in [P] have w row by row, then b. */
#include "methods/method.h"

/* --- rows, domains, and the head -------------------------------------------------------------- */

typedef struct domains {
    bl_tensor member;  /* [N,E] 1 where row i is of domain e */
    bl_tensor average; /* [N,E] the same over the number of rows: a mean over each domain */
    bl_tensor overall; /* [N] mean over domains of those means, however large each is */
} domains;

static domains domains_of(bl_tensor domain, int64_t count)
{
    domains d = {.member = bl_onehot(domain, count, BL_F32)};
    d.average = bl_div(d.member, bl_max(bl_sum_keep(d.member, 0), 1));
    d.overall = bl_mean(d.average, 1);
    return d;
}

typedef struct head {
    bl_tensor G;          /* [N,F+1] features and 1 */
    bl_tensor p, r, loss; /* [N,C] probabilities and residuals, [N] */
    bool softmax;
} head;

/* C is at least 1, and 1 where the loss is a sigmoid's. */
static bool right_classes(bl_graph *graph, int64_t classes, const char *loss)
{
    if (classes == 1 || (classes > 1 && bl_is(loss, "softmax")))
        return true;
    bl_poison(graph, "there are %lld logits, expected %s", (long long)classes,
              bl_is(loss, "sigmoid") ? "1 with the sigmoid loss" : "at least 1");
    return false;
}

static head of_logits(bl_tensor logits, bl_tensor y, const char *loss)
{
    head h = {.softmax = bl_is(loss, "softmax")};
    if (h.softmax) {
        h.p = bl_softmax(logits, -1);
        h.r = bl_sub(h.p, bl_onehot(y, bl_dim(logits, 1), BL_F32));
        h.loss = bl_cross_entropy_rows(logits, y);
    } else {
        bl_tensor target = bl_cast(bl_expand(y, 1), BL_F32);
        h.p = bl_sigmoid(logits);
        h.r = bl_sub(h.p, target);
        h.loss = bl_squeeze(bl_binary_cross_entropy(logits, target), 1);
    }
    return h;
}

static head head_of(bl_tensor phi, bl_tensor y, bl_tensor w, bl_tensor b, const char *loss)
{
    head h = of_logits(bl_linear(phi, w, b), y, loss);
    bl_tensor one = bl_full(phi.graph, BL_F32, BL_SHAPE(bl_dim(phi, 0), 1), 1);
    h.G = bl_concat((bl_tensor[]){phi, one}, 2, 1);
    return h;
}

/* Of every domain the mean of q_i (x) G_i: q[N,K] G[N,F] -> [E,K,F]. */
static bl_tensor mean_products(const domains *d, bl_tensor q, bl_tensor G)
{
    int64_t n = bl_dim(q, 0), k = bl_dim(q, 1), e = bl_dim(d->average, 1);
    bl_tensor weighted = bl_mul(bl_expand(d->average, 2), bl_expand(q, 1));
    bl_tensor sums = bl_dot(bl_reshape(weighted, BL_SHAPE(n, e * k)), G, true, false);
    return bl_reshape(sums, BL_SHAPE(e, k, bl_dim(G, 1)));
}

/* G_i times the x of row i's domain: x[E,K,F] -> [N,K]. */
static bl_tensor own_products(const domains *d, bl_tensor x, bl_tensor G)
{
    int64_t e = bl_dim(x, 0), k = bl_dim(x, 1);
    bl_tensor all = bl_dot(G, bl_reshape(x, BL_SHAPE(e * k, bl_dim(x, 2))), false, true);
    all = bl_reshape(all, BL_SHAPE(bl_dim(G, 0), e, k));
    return bl_sum(bl_mul(bl_expand(d->member, 2), all), 1);
}

/* A s for several s of each row: s[N,K C] -> [N,K C]. */
static bl_tensor curvature(const head *h, bl_tensor s)
{
    int64_t n = bl_dim(s, 0), c = bl_dim(h->p, 1), k = bl_dim(s, 1) / c;
    bl_tensor p = bl_expand(h->p, 1), each = bl_reshape(s, BL_SHAPE(n, k, c)), q;
    if (h->softmax)
        q = bl_mul(p, bl_sub(each, bl_sum_keep(bl_mul(p, each), -1)));
    else
        q = bl_mul(bl_mul(p, bl_sub(1, p)), each);
    return bl_reshape(q, BL_SHAPE(n, k * c));
}

/* H_e x_e, for x[E,K C,F+1]: K vectors for each domain. */
static bl_tensor hessian_products(const head *h, const domains *d, bl_tensor x)
{
    return mean_products(d, curvature(h, own_products(d, x, h->G)), h->G);
}

/* The Hessian of the mean loss times x[K C,F+1]. */
static bl_tensor mean_hessian_products(const head *h, const domains *d, bl_tensor x)
{
    bl_tensor q = curvature(h, bl_dot(h->G, x, false, true));
    return bl_dot(bl_mul(bl_expand(d->overall, 1), q), h->G, true, false);
}

/* x[K,C,F+1] -> [K,P]: w row by row, then b. */
static bl_tensor in_order(bl_tensor x)
{
    int64_t k = bl_dim(x, 0), c = bl_dim(x, 1), f = bl_dim(x, 2) - 1;
    bl_tensor w = bl_reshape(bl_slice_axis(x, 2, 0, f), BL_SHAPE(k, c * f));
    bl_tensor b = bl_reshape(bl_slice_axis(x, 2, f, f + 1), BL_SHAPE(k, c));
    return bl_concat((bl_tensor[]){w, b}, 2, 1);
}

/* x[K,P] -> [K,C,F+1] */
static bl_tensor from_order(bl_tensor x, int64_t c)
{
    int64_t k = bl_dim(x, 0), f = bl_dim(x, 1) / c - 1;
    bl_tensor w = bl_reshape(bl_slice_axis(x, 1, 0, c * f), BL_SHAPE(k, c, f));
    bl_tensor b = bl_reshape(bl_slice_axis(x, 1, c * f, c * f + c), BL_SHAPE(k, c, 1));
    return bl_concat((bl_tensor[]){w, b}, 2, 2);
}

static bl_tensor maybe_stopped(bl_tensor x, bool stop)
{
    return stop ? bl_stop_gradient(x) : x;
}

/* Sum or mean over domains of |x_e - center|^2: x[E,..]. */
static bl_tensor scatter(bl_tensor x, bl_tensor center, const char *reduction)
{
    bl_tensor sum = bl_sum(bl_square(bl_sub(x, center)));
    return bl_is(reduction, "sum") ? sum : bl_div(sum, (double)bl_dim(x, 0));
}

/* --- checks of values ------------------------------------------------------------------------- */

static bl_status check_labels(const bl_dictionary *in, const char *loss, int64_t classes)
{
    const bl_array *y = bl_dictionary_find(in, "y");
    int64_t rows = bl_array_count(y), limit = bl_is(loss, "sigmoid") ? 2 : classes;
    for (int64_t i = 0; i < rows; i++)
        if (bl_i32(y)[i] < 0 || bl_i32(y)[i] >= limit)
            return bl_fail(BL_INVALID, "y[%lld] is %d, expected 0 <= . < %lld", (long long)i,
                           bl_i32(y)[i], (long long)limit);
    return BL_OK;
}

static bl_status check_domains(const bl_dictionary *in, int64_t count, int64_t least)
{
    const bl_array *domain = bl_dictionary_find(in, "domain");
    int64_t rows = bl_array_count(domain);
    int64_t *members = bl_alloc((size_t)count * sizeof *members), e = 0;
    if (!members)
        return bl_no_memory((size_t)count * sizeof *members);
    for (int64_t i = 0; i < rows; i++)
        members[bl_i32(domain)[i]]++;
    while (e < count && members[e] >= least)
        e++;
    int64_t found = e < count ? members[e] : 0;
    bl_release(members);
    if (e < count)
        return bl_fail(BL_INVALID, "domain %lld has %lld rows, expected at least %lld",
                       (long long)e, (long long)found, (long long)least);
    return BL_OK;
}

static bl_status check_rows(const bl_dictionary *in, const char *loss, int64_t count)
{
    BL_TRY(check_labels(in, loss, bl_dictionary_find(in, "w")->type.shape.dim[0]));
    return check_domains(in, count, 1);
}

/* --- the two penalties ------------------------------------------------------------------------ */

#define HESSIAN_ALIGNMENT_HGP(IN, OPT, OUT)                                                        \
    IN (phi,           "f32[N,F]",     "grad, rows > 0", "features, all domains together")         \
    IN (y,             "i32[N]",       "",               "class")                                  \
    IN (domain,        "i32[N]",       "0 <= . < n_domains", "domain of each row, in any order")   \
    IN (w,             "f32[C,F]",     "grad",           "the linear head")                        \
    IN (b,             "f32[C]",       "grad",           "")                                       \
    OPT(n_domains,     2,              ">= 1",           "")                                       \
    OPT(alpha,         1e-4,           "[0,inf)",        "weight of hess_term")                    \
    OPT(beta,          5e-3,           "[0,inf)",        "weight of grad_term")                    \
    OPT(loss,          "softmax",      "softmax|sigmoid", "sigmoid: one logit")                    \
    OPT(center,        "of_mean_loss", "of_mean_loss|mean_of_products", "what products should be") \
    OPT(detach_center, 1,              "flag",           "no gradient through the centers")        \
    OPT(reduction,     "mean",         "mean|sum",       "over domains")                           \
    OUT(penalty,       "f32[]",                          "alpha hess_term + beta grad_term")       \
    OUT(hess_term,     "f32[]",                          "of |H_e g_e - center|^2")                \
    OUT(grad_term,     "f32[]",                          "of |g_e - mean g|^2")                    \
    OUT(risk,          "f32[]",                          "mean loss, domains weighing the same")   \
    OUT(hg,            "f32[n_domains,?]",               "H_e g_e, [n_domains,P]")

static bl_contract_check hgp_check;

BL_CONTRACT_CHECKED(hessian_alignment_hgp, HESSIAN_ALIGNMENT_HGP,
                    "aligns products of Hessian and gradient", hgp_check)
{
    if (!right_classes(graph, bl_dim(f->w, 0), f->loss))
        return;
    head h      = head_of(f->phi, f->y, f->w, f->b, f->loss);
    domains d   = domains_of(f->domain, f->n_domains);
    bl_tensor g = mean_products(&d, h.r, h.G), v = hessian_products(&h, &d, g);
    bl_tensor mean_g = bl_mean(g, 0);
    bl_tensor center = bl_is(f->center, "of_mean_loss") ? mean_hessian_products(&h, &d, mean_g)
                                                        : bl_mean(v, 0);
    f->hess_term = scatter(v, maybe_stopped(center, f->detach_center), f->reduction);
    f->grad_term = scatter(g, maybe_stopped(mean_g, f->detach_center), f->reduction);
    f->penalty   = bl_add(bl_mul(f->alpha, f->hess_term), bl_mul(f->beta, f->grad_term));
    f->risk      = bl_sum(bl_mul(d.overall, h.loss));
    f->hg        = in_order(v);
}

static bl_status hgp_check(const bl_dictionary *in, const void *options)
{
    const struct hessian_alignment_hgp *o = options;
    return check_rows(in, o->loss, o->n_domains);
}

#define HESSIAN_ALIGNMENT_HUTCHINSON(IN, OPT, OUT)                                                 \
    IN (phi,           "f32[N,F]",     "grad, rows > 0", "features, all domains together")         \
    IN (y,             "i32[N]",       "",               "class")                                  \
    IN (domain,        "i32[N]",       "0 <= . < n_domains", "domain of each row, in any order")   \
    IN (w,             "f32[C,F]",     "grad",           "the linear head")                        \
    IN (b,             "f32[C]",       "grad",           "")                                       \
    IN (z_mean,        "f32[R,P]",     "optional, in {-1,1}", "draws for the mean loss; not with " \
                                                         "exact")                                  \
    IN (z_env,         "f32[n_domains,R,P]", "optional, in {-1,1}", "draws of each domain's own")  \
    OPT(n_domains,     2,              ">= 1",           "")                                       \
    OPT(alpha,         1e-3,           "[0,inf)",        "weight of hess_term")                    \
    OPT(beta,          5e-3,           "[0,inf)",        "weight of grad_term")                    \
    OPT(loss,          "softmax",      "softmax|sigmoid", "sigmoid: one logit")                    \
    OPT(detach_center, 1,              "flag",           "no gradient through the centers")        \
    OPT(reduction,     "mean",         "mean|sum",       "over domains")                           \
    OPT(estimator,     "hutchinson",   "hutchinson|exact", "mean of z (H z) over draws, or no "    \
                                                         "noise and no draws")                     \
    OUT(penalty,       "f32[]",                          "alpha hess_term + beta grad_term")       \
    OUT(hess_term,     "f32[]",                          "of |diag H_e - diag H|^2")               \
    OUT(grad_term,     "f32[]",                          "of |g_e - mean g|^2")                    \
    OUT(risk,          "f32[]",                          "mean loss, domains weighing the same")   \
    OUT(diag,          "f32[n_domains,?]",               "diagonals of H_e, [n_domains,P]")

static bl_contract_check hutchinson_check;

/* mean over R draws of z (H z), z[E,R C,F+1] and hz alike -> [E,C,F+1] */
static bl_tensor mean_of_draws(bl_tensor z, bl_tensor hz, int64_t draws)
{
    int64_t e = bl_dim(z, 0), c = bl_dim(z, 1) / draws;
    bl_shape shape = BL_SHAPE(e, draws, c, bl_dim(z, 2));
    return bl_mean(bl_reshape(bl_mul(z, hz), shape), 1);
}

/* z_env[E,R,P], z_mean[R,P] -> diagonals [E,C,F+1] and [C,F+1] */
static void estimated_diagonals(const head *h, const domains *d, bl_tensor z_env, bl_tensor z_mean,
                                bl_tensor *each, bl_tensor *center)
{
    int64_t c = bl_dim(h->p, 1), r = bl_dim(z_mean, 0), e = bl_dim(z_env, 0);
    int64_t width = bl_dim(h->G, 1);
    bl_tensor z = from_order(bl_reshape(z_env, BL_SHAPE(e * r, c * width)), c);
    z = bl_reshape(z, BL_SHAPE(e, r * c, width));
    *each = mean_of_draws(z, hessian_products(h, d, z), r);
    z = bl_reshape(from_order(z_mean, c), BL_SHAPE(r * c, width));
    bl_tensor hz = mean_hessian_products(h, d, z);
    *center = bl_squeeze(mean_of_draws(bl_expand(z, 0), bl_expand(hz, 0), r), 0);
}

static bool has_draws(bl_graph *graph, bl_tensor z_env, bl_tensor z_mean, int64_t P)
{
    if (bl_is_number(z_mean) || bl_is_number(z_env)) {
        bl_poison(graph, "input %s is missing, expected with the estimator hutchinson",
                  bl_is_number(z_mean) ? "z_mean" : "z_env");
        return false;
    }
    if (bl_dim(z_mean, 1) == P && bl_dim(z_mean, 0) > 0)
        return true;
    bl_poison(graph, "z_mean has %lld rows of %lld, expected at least one, of P = %lld",
              (long long)bl_dim(z_mean, 0), (long long)bl_dim(z_mean, 1), (long long)P);
    return false;
}

BL_CONTRACT_CHECKED(hessian_alignment_hutchinson, HESSIAN_ALIGNMENT_HUTCHINSON,
                    "aligns diagonals of the Hessian", hutchinson_check)
{
    bool exact = bl_is(f->estimator, "exact");
    int64_t c = bl_dim(f->w, 0), P = c * (bl_dim(f->w, 1) + 1);
    if (!right_classes(graph, c, f->loss) ||
        (!exact && !has_draws(graph, f->z_env, f->z_mean, P)))
        return;
    head h      = head_of(f->phi, f->y, f->w, f->b, f->loss);
    domains d   = domains_of(f->domain, f->n_domains);
    bl_tensor g = mean_products(&d, h.r, h.G), mean_g = bl_mean(g, 0), diagonal, center;
    if (exact) { /* mean of p (1 - p) G^2 */
        diagonal = mean_products(&d, bl_mul(h.p, bl_sub(1, h.p)), bl_square(h.G));
        center   = bl_mean(diagonal, 0);
    } else {
        estimated_diagonals(&h, &d, f->z_env, f->z_mean, &diagonal, &center);
    }
    f->hess_term = scatter(diagonal, maybe_stopped(center, f->detach_center), f->reduction);
    f->grad_term = scatter(g, maybe_stopped(mean_g, f->detach_center), f->reduction);
    f->penalty   = bl_add(bl_mul(f->alpha, f->hess_term), bl_mul(f->beta, f->grad_term));
    f->risk      = bl_sum(bl_mul(d.overall, h.loss));
    f->diag      = in_order(diagonal);
}

static bl_status hutchinson_check(const bl_dictionary *in, const void *options)
{
    const struct hessian_alignment_hutchinson *o = options;
    return check_rows(in, o->loss, o->n_domains);
}

/* --- to look at ------------------------------------------------------------------------------- */

#define HESSIAN_ALIGNMENT_HEAD_HESSIAN(IN, OPT, OUT)                                               \
    IN (phi,     "f32[N,F]", "grad, rows > 0",  "features")                                        \
    IN (y,       "i32[N]",   "",                "class")                                           \
    IN (w,       "f32[C,F]", "grad",            "the linear head")                                 \
    IN (b,       "f32[C]",   "grad",            "")                                                \
    OPT(loss,    "softmax",  "softmax|sigmoid", "sigmoid: one logit")                              \
    OUT(hessian, "f32[?,?]",                    "of the mean loss, [P,P]")                         \
    OUT(grad,    "f32[?]",                      "[P]")

static bl_contract_check head_hessian_check;

/* mean over rows of (diag(a) - t t^T) (x) G G^T: a = t = p for softmax; a = p (1 - p), t = 0 for
 * sigmoid. */
static bl_tensor head_hessian(bl_graph *graph, const head *h)
{
    int64_t n = bl_dim(h->G, 0), width = bl_dim(h->G, 1), c = bl_dim(h->p, 1);
    bl_tensor a = h->softmax ? h->p : bl_mul(h->p, bl_sub(1, h->p));
    bl_shape flat = BL_SHAPE(n, c * width), blocks = BL_SHAPE(c, width, c, width);
    bl_tensor each = bl_reshape(bl_mul(bl_expand(a, 2), bl_expand(h->G, 1)), flat);
    bl_tensor diagonal = bl_reshape(bl_dot(each, h->G, true, false), BL_SHAPE(c, width, 1, width));
    bl_tensor same = bl_eq(bl_iota(graph, BL_I32, blocks, 0), bl_iota(graph, BL_I32, blocks, 2));
    bl_tensor sum = bl_select(same, bl_broadcast(diagonal, blocks), 0);
    if (h->softmax)
        sum = bl_sub(sum, bl_reshape(bl_dot(each, each, true, false), blocks));
    return bl_div(bl_reshape(sum, BL_SHAPE(c * width, c * width)), (double)n);
}

BL_CONTRACT_CHECKED(hessian_alignment_head_hessian, HESSIAN_ALIGNMENT_HEAD_HESSIAN,
                    "the whole Hessian of the head", head_hessian_check)
{
    int64_t c = bl_dim(f->w, 0), width = bl_dim(f->w, 1) + 1, P = c * width;
    if (!right_classes(graph, c, f->loss))
        return;
    head h = head_of(f->phi, f->y, f->w, f->b, f->loss);
    bl_tensor half = in_order(bl_reshape(head_hessian(graph, &h), BL_SHAPE(P, c, width)));
    f->hessian = in_order(bl_reshape(bl_transpose(half), BL_SHAPE(P, c, width)));
    bl_tensor g = bl_div(bl_dot(h.r, h.G, true, false), (double)bl_dim(f->phi, 0));
    f->grad = bl_squeeze(in_order(bl_expand(g, 0)), 0);
}

static bl_status head_hessian_check(const bl_dictionary *in, const void *options)
{
    const struct hessian_alignment_head_hessian *o = options;
    return check_labels(in, o->loss, bl_dictionary_find(in, "w")->type.shape.dim[0]);
}

#define HESSIAN_ALIGNMENT_HESSIAN_DISTANCE(IN, OPT, OUT)                                           \
    IN (h0,        "f32[P,P]", "grad, rows > 0", "a Hessian, symmetric")                           \
    IN (h1,        "f32[P,P]", "grad",           "of another domain")                              \
    OUT(spectral,  "f32[]",    "largest absolute eigenvalue of the difference: the theory's")      \
    OUT(frobenius, "f32[]",    "root of the sum of squares of the difference: the code's")

BL_CONTRACT(hessian_alignment_hessian_distance, HESSIAN_ALIGNMENT_HESSIAN_DISTANCE,
            "how far two Hessians are apart")
{
    bl_tensor difference = bl_sub(f->h0, f->h1), value, vector;
    bl_eigh(difference, &value, &vector);
    f->spectral  = bl_reduce_max(bl_abs(value));
    f->frobenius = bl_sqrt(bl_sum(bl_square(difference)));
}

/* --- the relatives ---------------------------------------------------------------------------- */

#define HESSIAN_ALIGNMENT_IRM(IN, OPT, OUT)                                                        \
    IN (logits,    "f32[N,C]", "grad, rows > 0",     "all domains together")                       \
    IN (y,         "i32[N]",   "",                   "class")                                      \
    IN (domain,    "i32[N]",   "0 <= . < n_domains", "domain of each row, in any order")           \
    OPT(n_domains, 2,          ">= 1",               "")                                           \
    OPT(loss,      "softmax",  "softmax|sigmoid",    "sigmoid: one logit")                         \
    OPT(split,     0,          "flag",               "product of two halves, every other row of a "\
                                                     "domain, in place of the square")             \
    OUT(penalty,   "f32[]", "mean over domains of the squared derivative in the logits' scale")    \
    OUT(risk,      "f32[]", "mean loss, domains weighing the same")

static bl_contract_check irm_check;

/* Means over the even and the odd rows of each domain, in stored order: x[N] -> [E] each. */
static void means_of_halves(const domains *d, bl_tensor x, bl_tensor half[2])
{
    bl_tensor place = bl_sum(bl_mul(d->member, bl_sub(bl_cumsum(d->member, 0), 1)), 1);
    bl_tensor odd = bl_expand(bl_rem(place, 2), 1);
    for (int i = 0; i < 2; i++) {
        bl_tensor member = bl_mul(d->member, i ? odd : bl_sub(1, odd));
        bl_tensor sum = bl_sum(bl_mul(member, bl_expand(x, 1)), 0);
        half[i] = bl_div(sum, bl_max(bl_sum(member, 0), 1));
    }
}

BL_CONTRACT_CHECKED(hessian_alignment_irm, HESSIAN_ALIGNMENT_IRM, "invariant risk minimisation",
                    irm_check)
{
    if (!right_classes(graph, bl_dim(f->logits, 1), f->loss))
        return;
    head h      = of_logits(f->logits, f->y, f->loss);
    domains d   = domains_of(f->domain, f->n_domains);
    bl_tensor s = bl_sum(bl_mul(h.r, f->logits), 1), half[2]; /* d loss(t logits) / dt at 1 */
    half[0] = half[1] = bl_sum(bl_mul(d.average, bl_expand(s, 1)), 0);
    if (f->split)
        means_of_halves(&d, s, half);
    f->penalty = bl_mean(bl_mul(half[0], half[1]));
    f->risk    = bl_sum(bl_mul(d.overall, h.loss));
}

static bl_status irm_check(const bl_dictionary *in, const void *options)
{
    const struct hessian_alignment_irm *o = options;
    BL_TRY(check_labels(in, o->loss, bl_dictionary_find(in, "logits")->type.shape.dim[1]));
    return check_domains(in, o->n_domains, o->split ? 2 : 1);
}

#define HESSIAN_ALIGNMENT_VREX(IN, OPT, OUT)                                                       \
    IN (losses,  "f32[E]",   "grad, rows > 0",      "of each domain")                              \
    OPT(form,    "variance", "variance|difference", "variance, or (L_0 - L_1)^2")                  \
    OUT(penalty, "f32[]",                           "")

BL_CONTRACT(hessian_alignment_vrex, HESSIAN_ALIGNMENT_VREX, "risk extrapolation")
{
    if (bl_is(f->form, "variance")) {
        f->penalty = bl_variance(f->losses);
    } else if (bl_dim(f->losses, 0) < 2) {
        bl_poison(graph, "losses has 1 domain, expected at least 2 with the form difference");
    } else {
        bl_tensor first = bl_slice_axis(f->losses, 0, 0, 1);
        bl_tensor second = bl_slice_axis(f->losses, 0, 1, 2);
        f->penalty = bl_sum(bl_square(bl_sub(first, second)));
    }
}

#define HESSIAN_ALIGNMENT_IGA(IN, OPT, OUT)                                                        \
    IN (grads,         "f32[E,P]", "grad, rows > 0", "gradient of each domain")                    \
    OPT(detach_center, 1,          "flag",           "which changes nothing: deviations sum to 0") \
    OUT(penalty,       "f32[]",                      "sum of |g_e - mean g|^2")

BL_CONTRACT(hessian_alignment_iga, HESSIAN_ALIGNMENT_IGA, "aligns gradients")
{
    bl_tensor center = maybe_stopped(bl_mean(f->grads, 0), f->detach_center);
    f->penalty = scatter(f->grads, center, "sum");
}

#define HESSIAN_ALIGNMENT_FISHR(IN, OPT, OUT)                                                      \
    IN (phi,        "f32[N,F]", "grad, rows > 0",     "features, all domains together")            \
    IN (y,          "i32[N]",   "",                   "class")                                     \
    IN (domain,     "i32[N]",   "0 <= . < n_domains", "domain of each row, in any order")          \
    IN (w,          "f32[C,F]", "grad",               "the linear head")                           \
    IN (b,          "f32[C]",   "grad",               "")                                          \
    IN (state,      "f32[n_domains,P]", "",           "average of variances so far")               \
    OPT(n_domains,  2,          ">= 1",               "")                                          \
    OPT(loss,       "softmax",  "softmax|sigmoid",    "sigmoid: one logit")                        \
    OPT(ema,        0.95,       "[0,1)",              "share of the state that stays")             \
    OPT(correction, 1,          "flag",               "divide by 1 - ema")                         \
    OPT(centered,   1,          "flag",               "variance; else second moment")              \
    OPT(reduction,  "mean",     "mean|sum",           "over domains and parameters")               \
    OPT(first,      0,          "flag",               "first step: the state counts as 0")         \
    OUT(penalty,    "f32[]",                          "of the squared distance from the mean")     \
    OUT(state_out,  "f32[n_domains,P]",               "ema state + (1 - ema) var, no gradient")    \
    OUT(var,        "f32[n_domains,P]",               "of gradients by example, divided by n")

static bl_contract_check fishr_check;

/* The variance over each domain's rows of the gradients r_i (x) G_i. */
static bl_tensor gradient_variance(const head *h, const domains *d, bl_tensor domain, bool centered)
{
    bl_tensor gradient = bl_mul(bl_expand(h->r, 2), bl_expand(h->G, 1));
    if (centered)
        gradient = bl_sub(gradient, bl_take(mean_products(d, h->r, h->G), domain));
    int64_t n = bl_dim(gradient, 0), c = bl_dim(gradient, 1), width = bl_dim(gradient, 2);
    bl_tensor squares = bl_reshape(bl_square(gradient), BL_SHAPE(n, c * width));
    bl_tensor moment = bl_dot(d->average, squares, true, false);
    return in_order(bl_reshape(moment, BL_SHAPE(bl_dim(d->average, 1), c, width)));
}

BL_CONTRACT_CHECKED(hessian_alignment_fishr, HESSIAN_ALIGNMENT_FISHR,
                    "aligns variances of gradients", fishr_check)
{
    if (!right_classes(graph, bl_dim(f->w, 0), f->loss))
        return;
    head h    = head_of(f->phi, f->y, f->w, f->b, f->loss);
    domains d = domains_of(f->domain, f->n_domains);
    f->var    = gradient_variance(&h, &d, f->domain, f->centered);

    bl_tensor fresh = bl_sub(1, f->ema), now = bl_mul(fresh, f->var);
    if (!f->first)
        now = bl_add(bl_mul(f->ema, bl_stop_gradient(f->state)), now);
    bl_tensor used = f->correction ? bl_div(now, fresh) : now;
    bl_tensor away = bl_square(bl_sub(used, bl_mean_keep(used, 0)));
    f->penalty     = bl_is(f->reduction, "sum") ? bl_sum(away) : bl_mean(away);
    f->state_out   = bl_stop_gradient(now);
}

static bl_status fishr_check(const bl_dictionary *in, const void *options)
{
    const struct hessian_alignment_fishr *o = options;
    return check_rows(in, o->loss, o->n_domains);
}

#define HESSIAN_ALIGNMENT_CORAL(IN, OPT, OUT)                                                      \
    IN (phi,       "f32[N,F]", "grad, rows > 0",     "features, all domains together")             \
    IN (domain,    "i32[N]",   "0 <= . < n_domains", "domain of each row, in any order")           \
    OPT(n_domains, 2,          ">= 1",               "")                                           \
    OUT(penalty,   "f32[]", "mean over pairs of mean squared differences of means and covariances")

static bl_contract_check coral_check;

/* The mean over pairs of |x_i - x_j|^2 is 2 / (E - 1) times the sum of |x_e - mean|^2. */
static bl_tensor mean_over_pairs(bl_tensor x)
{
    bl_tensor size = bl_mean(bl_square(bl_sub(x, bl_mean_keep(x, 0))));
    double e = (double)bl_dim(x, 0);
    return bl_mul(2 * e / (e - 1), size);
}

BL_CONTRACT_CHECKED(hessian_alignment_coral, HESSIAN_ALIGNMENT_CORAL,
                    "aligns means and covariances of features", coral_check)
{
    if (f->n_domains == 1 || bl_dim(f->phi, 1) == 0) {
        f->penalty = bl_full(graph, BL_F32, BL_SCALAR, 0);
        return;
    }
    domains d = domains_of(f->domain, f->n_domains);
    bl_tensor means   = bl_dot(d.average, f->phi, true, false);
    bl_tensor centred = bl_sub(f->phi, bl_take(means, f->domain));
    bl_tensor rows = bl_sum(d.member, 0), unbiased = bl_div(rows, bl_max(bl_sub(rows, 1), 1));
    bl_tensor covariance = bl_mul(bl_reshape(unbiased, BL_SHAPE(f->n_domains, 1, 1)),
                                  mean_products(&d, centred, centred));
    f->penalty = bl_add(mean_over_pairs(means), mean_over_pairs(covariance));
}

static bl_status coral_check(const bl_dictionary *in, const void *options)
{
    return check_domains(in, ((const struct hessian_alignment_coral *)options)->n_domains, 2);
}

#define HESSIAN_ALIGNMENT_FISH_STEP(IN, OPT, OUT)                                                  \
    IN (theta,       "f32[P]", "",        "parameters")                                            \
    IN (theta_inner, "f32[P]", "",        "after an optimiser step on each domain in turn")        \
    OPT(meta_lr,     0.5,      "[0,inf)", "how far to follow")                                     \
    OUT(theta_out,   "f32[P]",            "theta + meta_lr (theta_inner - theta)")

BL_CONTRACT(hessian_alignment_fish_step, HESSIAN_ALIGNMENT_FISH_STEP, "the outer step of Fish")
{
    f->theta_out = bl_add(f->theta, bl_mul(f->meta_lr, bl_sub(f->theta_inner, f->theta)));
}

const bl_method bl_hessian_alignment = {
    .slug = "hessian_alignment",
    .family = "representation",
    .paper = "Hemati et al. 2023, arXiv 2308.11778",
    .summary = "(no arm) features that transfer to an unseen domain: heads alike in all of them",
    .when = "Several training domains with known membership, and a shortcut that predicts the "
            "label in all of them but not at test. Costs a few products of the size of the head.",
    .functions = {&hessian_alignment_hgp_contract, &hessian_alignment_hutchinson_contract,
                  &hessian_alignment_head_hessian_contract,
                  &hessian_alignment_hessian_distance_contract, &hessian_alignment_irm_contract,
                  &hessian_alignment_vrex_contract, &hessian_alignment_iga_contract,
                  &hessian_alignment_fishr_contract, &hessian_alignment_coral_contract,
                  &hessian_alignment_fish_step_contract},
    .example = "ballast show hessian_alignment_hgp",
};
