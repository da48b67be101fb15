/* Penalties on weights: L1 and L2, groups, the largest singular value, orthogonality.
 *
 * Each is a contract function on one array and an arm that adds it, summed over the layers, to the
 * loss. A gradient in the loss makes weights small, not zero: proximal.c makes zeros. */
#include "methods/classical/baselines/weights.h"

/* --- L1 and L2 -------------------------------------------------------------------------------- */

#define BASE_ELASTIC_NET(IN, OPT, OUT)                                                             \
    IN(w, "f32[...]", "grad", "weights of any shape")                                              \
    OPT(lam1, 0.0, "[0,inf)", "weight of the sum of absolute values")                              \
    OPT(lam2, 1e-4, "[0,inf)", "weight of half the sum of squares")                                \
    OUT(penalty, "f32[]", "lam1 sum |w| + lam2/2 sum w^2")

BL_CONTRACT(base_elastic_net, BASE_ELASTIC_NET, "L1, L2 or both")
{
    bl_tensor l1 = bl_sum(bl_abs(f->w));
    bl_tensor l2 = bl_sum(bl_square(f->w));
    f->penalty = bl_add(bl_mul(f->lam1, l1), bl_mul(bl_mul(0.5, f->lam2), l2));
}

static void add_elastic_net(bl_step *s, bl_tensor lam1, bl_tensor lam2)
{
    bl_tensor total = bl_number(0);
    for (int i = 0; i < s->parameters; i++) {
        if (!is_weight(s, i))
            continue;
        struct base_elastic_net f = {.w = s->raw[i], .lam1 = lam1, .lam2 = lam2};
        bl_call(base_elastic_net, &f);
        total = bl_add(total, f.penalty);
    }
    bl_measure(s, "penalty", total);
    s->loss = bl_add(s->loss, total);
}

#define WEIGHT_DECAY(OPT)                                                                          \
    OPT(value, 5e-4, "[0,inf), tune [1e-5,1e-2] log",                                              \
        "added to the decay of the recipe; biases and gains are not decayed")

BL_ARM_OPTIONS(weight_decay, WEIGHT_DECAY)

static void weight_decay_loss(bl_step *s, const void *options)
{
    const struct weight_decay *o = options;
    add_elastic_net(s, bl_number(0), o->value);
}

const bl_method bl_weight_decay = {
    .slug = "weight_decay",
    .family = "classical",
    .paper = "Krogh and Hertz 1991",
    .summary = "pulls weights towards zero: an L2 term in the loss",
    .when =
        "The first thing to tune. As a term of the loss it passes through momentum and, under "
        "Adam, through the step's scaling; the recipe's own decay stays. Costs next to nothing.",
    .functions = {&base_elastic_net_contract},
    .options = &weight_decay_contract,
    .example = "--arm \"weight_decay(value=0.002)\"",
    .hooks = &(const bl_hooks){.loss = weight_decay_loss},
};

#define ELASTIC_NET(OPT)                                                                           \
    OPT(lam1, 1e-5, "[0,inf), tune [1e-6,1e-3] log", "weight of the sum of absolute values")       \
    OPT(lam2, 1e-4, "[0,inf), tune [1e-5,1e-2] log", "weight of half the sum of squares")

BL_ARM_OPTIONS(elastic_net, ELASTIC_NET)

static void elastic_net_loss(bl_step *s, const void *options)
{
    const struct elastic_net *o = options;
    add_elastic_net(s, o->lam1, o->lam2);
}

const bl_method bl_elastic_net = {
    .slug = "elastic_net",
    .family = "classical",
    .paper = "Zou and Hastie 2005",
    .summary = "L1 and L2 terms in the loss: many weights close to zero",
    .when =
        "When few inputs matter. It makes weights small, not zero; for exact zeros use l1_prox.",
    .functions = {&base_elastic_net_contract},
    .options = &elastic_net_contract,
    .example = "--arm \"elastic_net(lam1=0.0001,lam2=0.001)\"",
    .hooks = &(const bl_hooks){.loss = elastic_net_loss},
};

/* --- groups ----------------------------------------------------------------------------------- */

#define BASE_GROUP_LASSO(IN, OPT, OUT)                                                             \
    IN(w, "f32[G,P]", "grad", "one group in each row")                                             \
    OPT(lam, 1e-4, "[0,inf), tune [1e-5,1e-2] log", "weight of the term")                          \
    OPT(size_weighted, 1, "flag", "multiply by sqrt(P), so that large groups pay more")            \
    OUT(penalty, "f32[]", "lam k sum_g |w_g|, k = sqrt(P) or 1; gradient 0 at an all-zero group")

BL_CONTRACT(base_group_lasso, BASE_GROUP_LASSO, "the sum of the lengths of groups of weights")
{
    double k = f->size_weighted ? sqrt((double)bl_dim(f->w, 1)) : 1;
    f->penalty = bl_mul(bl_mul(f->lam, k), bl_sum(bl_norm(f->w, 1)));
}

static void group_lasso_loss(bl_step *s, const void *options)
{
    bl_tensor total = bl_number(0);
    for (int i = 0; i < s->parameters; i++) {
        if (!is_hidden_weight(s, i))
            continue;
        struct base_group_lasso f = *(const struct base_group_lasso *)options;
        f.w = as_rows(s->raw[i]);
        bl_call(base_group_lasso, &f);
        total = bl_add(total, f.penalty);
    }
    bl_measure(s, "penalty", total);
    s->loss = bl_add(s->loss, total);
}

const bl_method bl_group_lasso = {
    .slug = "group_lasso",
    .family = "classical",
    .paper = "Yuan and Lin 2006",
    .summary = "makes whole units and channels weak",
    .when =
        "When a narrower network would do. Groups are the weights of one output unit or channel "
        "of the hidden layers; for units that are exactly zero use group_prox.",
    .functions = {&base_group_lasso_contract},
    .example = "--arm \"group_lasso(lam=0.001)\"",
    .hooks = &(const bl_hooks){.loss = group_lasso_loss},
};

/* --- the largest singular value --------------------------------------------------------------- */

#define BASE_SPECTRAL_PENALTY(IN, OPT, OUT)                                                        \
    IN(w, "f32[O,I]", "grad", "weights; of a convolution [O, the rest]")                           \
    IN(u, "f32[O]", "", "left singular vector found so far; not zero")                             \
    OPT(lam, 0.01, "[0,inf), tune [1e-4,1e-1] log", "weight of the term")                          \
    OPT(n_iter, 1, ">= 1", "power iterations")                                                     \
    OUT(penalty, "f32[]", "lam/2 sigma^2")                                                         \
    OUT(sigma, "f32[]", "u^T w v: the largest singular value, once u and v have settled")          \
    OUT(u_new, "f32[O]", "the vector to start the next call with")

BL_CONTRACT(base_spectral_penalty, BASE_SPECTRAL_PENALTY,
            "the squared largest singular value, by power iteration (Yoshida and Miyato 2017)")
{
    bl_tensor u = f->u, v = u, fixed = bl_stop_gradient(f->w);
    for (int64_t k = 0; k < f->n_iter; k++) {
        v = bl_unit_rows(bl_matmul(u, fixed), 1e-12);
        u = bl_unit_rows(bl_matmul(fixed, v), 1e-12);
    }
    f->u_new = bl_stop_gradient(u);
    f->sigma = bl_sum(bl_mul(f->u_new, bl_matmul(f->w, bl_stop_gradient(v))));
    f->penalty = bl_mul(bl_mul(0.5, f->lam), bl_square(f->sigma));
}

/* u is kept between steps. A method's state beside a parameter has the parameter's shape, so every
 * row of it holds u; it starts at the parameter, whose first row is a random vector. */
static void spectral_loss(bl_step *s, const void *options)
{
    bl_tensor total = bl_number(0), largest = bl_number(0);
    for (int i = 0; i < s->parameters; i++) {
        if (!is_weight(s, i))
            continue;
        struct base_spectral_penalty f = *(const struct base_spectral_penalty *)options;
        bl_tensor kept = bl_parameter_state(s, "u", i, BL_START_AT_PARAMETER);
        bl_tensor rows = bl_reshape(kept, BL_SHAPE(-1, bl_dim(kept, -1)));
        f.w = as_rows(s->raw[i]);
        f.u = bl_pick(rows, 0, 0);
        bl_call(base_spectral_penalty, &f);
        bl_set_parameter_state(s, "u", i, bl_broadcast(f.u_new, bl_type_of(kept).shape));
        total = bl_add(total, f.penalty);
        largest = bl_max(largest, f.sigma);
    }
    bl_measure(s, "sigma", largest);
    s->loss = bl_add(s->loss, total);
}

const bl_method bl_spectral = {
    .slug = "spectral",
    .family = "classical",
    .paper = "Yoshida and Miyato 2017, arXiv 1705.10941",
    .summary = "keeps every layer's largest singular value small",
    .when =
        "When small changes of the input should change little. Two products of each weight with "
        "a vector a step: cheap.",
    .functions = {&base_spectral_penalty_contract},
    .example = "--arm \"spectral(lam=0.01)\"",
    .hooks = &(const bl_hooks){.loss = spectral_loss},
};

/* --- orthogonality ---------------------------------------------------------------------------- */

#define BASE_ORTHOGONALITY_PENALTY(IN, OPT, OUT)                                                   \
    IN(w, "f32[O,I]", "grad", "weights; of a convolution [O, the rest]")                           \
    OPT(lam, 1e-4, "[0,inf), tune [1e-5,1e-2] log", "weight of the term")                          \
    OPT(side, "auto", "rows|cols|auto", "which of w's rows and columns; auto: the fewer")          \
    OUT(penalty, "f32[]", "lam |w w^T - I|^2 (rows) or lam |w^T w - I|^2 (cols)")

BL_CONTRACT(base_orthogonality_penalty, BASE_ORTHOGONALITY_PENALTY,
            "distance of a matrix from having orthonormal rows or columns")
{
    bool fewer_rows = bl_dim(f->w, 0) <= bl_dim(f->w, 1);
    bool rows = bl_is(f->side, "rows") || (bl_is(f->side, "auto") && fewer_rows);
    int64_t n = bl_dim(f->w, rows ? 0 : 1);
    bl_tensor gram = bl_dot(f->w, f->w, !rows, rows);
    bl_tensor identity = bl_identity(graph, BL_F32, n);
    f->penalty = bl_mul(f->lam, bl_sum(bl_square(bl_sub(gram, identity))));
}

static void orthogonality_loss(bl_step *s, const void *options)
{
    bl_tensor total = bl_number(0);
    for (int i = 0; i < s->parameters; i++) {
        if (!is_hidden_weight(s, i))
            continue;
        struct base_orthogonality_penalty f = *(const struct base_orthogonality_penalty *)options;
        f.w = as_rows(s->raw[i]);
        bl_call(base_orthogonality_penalty, &f);
        total = bl_add(total, f.penalty);
    }
    bl_measure(s, "penalty", total);
    s->loss = bl_add(s->loss, total);
}

const bl_method bl_orthogonality = {
    .slug = "orthogonality",
    .family = "classical",
    .paper = "Brock et al. 2017, arXiv 1609.07093",
    .summary = "keeps the units of a layer from doing the same work",
    .when = "In deep networks without normalisation layers. One small matrix product for each "
            "layer and step; on the hidden layers only.",
    .functions = {&base_orthogonality_penalty_contract},
    .example = "--arm \"orthogonality(lam=0.001)\"",
    .hooks = &(const bl_hooks){.loss = orthogonality_loss},
};
