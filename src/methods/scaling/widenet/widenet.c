/* Go wider instead of deeper. Xue, Shi, Wei, Lou, Liu, You, AAAI 2022, arXiv 2107.11817. One
 * attention layer and one mixture of experts serve all blocks of a transformer; only the layer
 * norms are each block's own, so that the router may send a token to other experts at another
 * depth.
 *
 * Routing gives every expert a buffer of `capacity` rows. Token choices that find theirs full are
 * dropped, and the residual connection carries the token on. */
#include "methods/method.h"

#define ROUTING(OPT)                                                                               \
    OPT(k, 2, ">= 1", "experts a token, at most E")                                                \
    OPT(capacity_factor, 1.2, "(0,inf)", "room in buffers, 1 if all were equally full")            \
    OPT(min_capacity, 1, ">= 1", "least length of a buffer")                                       \
    OPT(even_capacity, 0, "flag", "make odd lengths even by adding 1")                             \
    OPT(balance_div_k, 0, "flag", "divide l_balance by k")

#define ROUTED(IN)                                                                                 \
    IN(x, "f32[T,d]", "grad, rows > 0, finite", "tokens after layer norm")                         \
    IN(w_r, "f32[E,d]", "grad, rows > 0, finite", "router")                                        \
    IN(noise, "f32[T,E]", "finite", "added to the router's logits; zeros at evaluation")

/* --- the router ------------------------------------------------------------------------------- */

#define WIDENET_ROUTE(IN, OPT, OUT)                                                                \
    ROUTED(IN)                                                                                     \
    ROUTING(OPT)                                                                                   \
    OUT(gate, "f32[T,k]", "probability of each choice; they do not add up to 1")                   \
    OUT(l_balance, "f32[]", "k where experts are equally busy (1 with balance_div_k)")             \
    OUT(expert, "i32[T,k]", "choices, best first, ties lower index first")                         \
    OUT(slot, "i32[T,k]", "row in the expert's buffer, -1 if dropped")                             \
    OUT(capacity, "i32[]", "length of a buffer")

struct widenet_route;
static int64_t capacity_of(const struct widenet_route *f, int64_t tokens, int64_t experts);

/* How many earlier choices name the same expert: all first choices come before all second ones. */
static bl_tensor places(bl_tensor expert, int64_t experts)
{
    int64_t tokens = bl_dim(expert, 0), k = bl_dim(expert, 1);
    bl_tensor in_order = bl_reshape(bl_transpose(expert), BL_SHAPE(k * tokens));
    bl_tensor chosen = bl_onehot(in_order, experts, BL_I32);
    bl_tensor before = bl_sub(bl_cumsum(chosen, 0), chosen);
    bl_tensor place = bl_sum(bl_mul(chosen, before), 1);
    return bl_transpose(bl_reshape(place, BL_SHAPE(k, tokens)));
}

/* E sum_i m_i P_i: m the shares of choices before dropping, constants; P the mean probabilities. */
static bl_tensor imbalance(bl_tensor p, bl_tensor expert)
{
    int64_t experts = bl_dim(p, 1);
    double tokens = (double)bl_dim(p, 0);
    bl_tensor share = bl_div(bl_sum(bl_onehot(expert, experts, BL_F32), 0, 1), tokens);
    return bl_mul((double)experts, bl_sum(bl_mul(share, bl_mean(p, 0))));
}

BL_CONTRACT(widenet_route, WIDENET_ROUTE, "which experts get which tokens")
{
    int64_t tokens = bl_dim(f->x, 0), experts = bl_dim(f->w_r, 0);
    if (f->k > experts || !bl_is_number(f->capacity_factor)) {
        if (f->k > experts)
            bl_poison(graph, "option k is %lld, expected at most E (E is %lld)", (long long)f->k,
                      (long long)experts);
        else
            bl_poison(graph,
                      "capacity_factor is scheduled, expected a number: buffers depend on it");
        return;
    }
    bl_tensor p = bl_softmax(bl_add(bl_dot(f->x, f->w_r, false, true), f->noise), 1);
    bl_top_k(p, f->k, &f->gate, &f->expert);
    f->l_balance = imbalance(p, f->expert);
    if (f->balance_div_k)
        f->l_balance = bl_div(f->l_balance, (double)f->k);

    double capacity = (double)capacity_of(f, tokens, experts);
    bl_tensor place = places(f->expert, experts);
    f->slot = bl_select(bl_lt(place, capacity), place, -1);
    f->capacity = bl_full(graph, BL_I32, BL_SCALAR, capacity);
}

static int64_t capacity_of(const struct widenet_route *f, int64_t tokens, int64_t experts)
{
    double choices = (double)(f->k * tokens);
    double room = choices * f->capacity_factor.number / (double)experts + 1e-9;
    int64_t capacity = (int64_t)fmin(floor(room), INT32_MAX - 1);
    capacity += f->even_capacity && capacity % 2;
    return capacity < f->min_capacity ? f->min_capacity : capacity;
}

/* --- the experts ------------------------------------------------------------------------------ */

#define EXPERTS(IN)                                                                                \
    IN(w1, "f32[E,d,h]", "grad", "first layer of each expert")                                     \
    IN(b1, "f32[E,h]", "grad", "its bias")                                                         \
    IN(w2, "f32[E,h,d]", "grad", "second layer of each expert")                                    \
    IN(b2, "f32[E,d]", "grad", "its bias")

#define WIDENET_MOE(IN, OPT, OUT)                                                                  \
    ROUTED(IN)                                                                                     \
    EXPERTS(IN)                                                                                    \
    ROUTING(OPT)                                                                                   \
    OPT(gelu_tanh, 0, "flag", "gelu in its tanh form")                                             \
    OUT(y, "f32[T,d]", "sum of the chosen experts by their gates; 0 for a token all have dropped") \
    OUT(l_balance, "f32[]", "load balance")                                                        \
    OUT(n_dropped, "i32[]", "choices that found their expert full")

struct widenet_moe;
static bl_tensor apply_experts(const struct widenet_moe *f, bl_tensor buffer);

/* The choices' rows in the buffers, one after another, of `length` each; those dropped have the row
 * behind the last. */
static bl_tensor buffer_rows(bl_tensor expert, bl_tensor slot, int64_t experts, int64_t length)
{
    bl_tensor row = bl_add(bl_mul(expert, (double)length), slot);
    bl_tensor kept = bl_select(bl_ge(slot, 0), row, (double)(experts * length));
    return bl_reshape(kept, BL_SHAPE(-1));
}

BL_CONTRACT(widenet_moe, WIDENET_MOE, "a mixture of experts")
{
    struct widenet_route r = BL_DEFAULTS(widenet_route);
    r.x = f->x, r.w_r = f->w_r, r.noise = f->noise, r.k = f->k;
    r.capacity_factor = f->capacity_factor, r.min_capacity = f->min_capacity;
    r.even_capacity = f->even_capacity, r.balance_div_k = f->balance_div_k;
    bl_call(widenet_route, &r);
    if (bl_is_poison(r.slot))
        return;
    int64_t tokens = bl_dim(f->x, 0), width = bl_dim(f->x, 1), experts = bl_dim(f->w_r, 0);
    int64_t length = capacity_of(&r, tokens, experts);
    length = length < tokens ? length : tokens; /* a token chooses an expert at most once */

    bl_tensor row = buffer_rows(r.expert, r.slot, experts, length);
    bl_tensor copies = bl_broadcast(bl_expand(f->x, 1), BL_SHAPE(tokens, f->k, width));
    bl_tensor empty = bl_full(graph, BL_F32, BL_SHAPE(experts * length + 1, width), 0);
    bl_tensor sent = bl_add_at(empty, row, bl_reshape(copies, BL_SHAPE(tokens * f->k, width)));
    bl_tensor buffer = bl_slice_axis(sent, 0, 0, experts * length);
    buffer = apply_experts(f, bl_reshape(buffer, BL_SHAPE(experts, length, width)));

    bl_tensor answers[] = {bl_reshape(buffer, BL_SHAPE(experts * length, width)),
                           bl_full(graph, BL_F32, BL_SHAPE(1, width), 0)};
    bl_tensor answer = bl_take(bl_concat(answers, 2, 0), row);
    answer = bl_reshape(answer, BL_SHAPE(tokens, f->k, width));
    f->y = bl_sum(bl_mul(bl_expand(r.gate, 2), answer), 1);
    f->l_balance = r.l_balance;
    f->n_dropped = bl_sum(bl_cast(bl_lt(r.slot, 0), BL_I32));
}

/* gelu(buffer w1 + b1) w2 + b2, each expert on its rows: buffer[E,length,d] */
static bl_tensor apply_experts(const struct widenet_moe *f, bl_tensor buffer)
{
    bl_tensor inner = bl_add(bl_dot(buffer, f->w1, false, false), bl_expand(f->b1, 1));
    inner = f->gelu_tanh ? bl_gelu(inner) : bl_gelu_exact(inner);
    return bl_add(bl_dot(inner, f->w2, false, false), bl_expand(f->b2, 1));
}

/* --- the encoder ------------------------------------------------------------------------------ */

#define WIDENET_ENCODER(IN, OPT, OUT)                                                              \
    IN(x, "f32[B,L,d]", "grad, rows > 0, finite", "embedded tokens")                               \
    IN(noise, "f32[D,T,E]", "finite", "of the router in each of D blocks; T is B L")               \
    IN(w_qkv, "f32[P,d]", "grad", "queries, keys, values: P is 3 heads dk")                        \
    IN(b_qkv, "f32[P]", "grad", "their bias")                                                      \
    IN(w_o, "f32[d,Q]", "grad", "output projection: Q is heads dk")                                \
    IN(b_o, "f32[d]", "grad", "its bias")                                                          \
    IN(w_r, "f32[E,d]", "grad, rows > 0, finite", "router")                                        \
    EXPERTS(IN)                                                                                    \
    IN(ln1_g, "f32[N,d]", "grad", "scales before attention; N is D, or 1: shared norms")           \
    IN(ln1_b, "f32[N,d]", "grad", "shifts")                                                        \
    IN(ln2_g, "f32[N,d]", "grad", "scales before the experts")                                     \
    IN(ln2_b, "f32[N,d]", "grad", "shifts")                                                        \
    IN(lnf_g, "f32[d]", "grad", "scale of the last norm")                                          \
    IN(lnf_b, "f32[d]", "grad", "shift")                                                           \
    OPT(heads, BL_REQUIRED_INTEGER, ">= 1", "of the attention")                                    \
    OPT(eps, 1e-6, "(0,inf)", "added to variances")                                                \
    ROUTING(OPT)                                                                                   \
    OPT(gelu_tanh, 0, "flag", "gelu in its tanh form")                                             \
    OUT(y, "f32[B,L,d]", "after the last norm")                                                    \
    OUT(l_balance, "f32[]", "load balance, summed over blocks")                                    \
    OUT(n_dropped, "i32[]", "choices dropped, in all blocks")

struct widenet_encoder;
static bl_tensor attend(const struct widenet_encoder *f, bl_tensor x);
static bl_tensor norm(const struct widenet_encoder *f, bl_tensor x, bl_tensor g, bl_tensor b,
                      int64_t block);
static struct widenet_moe mixture(const struct widenet_encoder *f, bl_tensor x, int64_t block);

static bool sizes_fit(bl_graph *graph, const struct widenet_encoder *f);

BL_CONTRACT(widenet_encoder, WIDENET_ENCODER, "blocks that share everything but their norms")
{
    if (!sizes_fit(graph, f))
        return;
    int64_t blocks = bl_dim(f->noise, 0), T = bl_dim(f->noise, 1), width = bl_dim(f->x, 2);
    bl_tensor x = f->x;
    f->l_balance = bl_full(graph, BL_F32, BL_SCALAR, 0);
    f->n_dropped = bl_full(graph, BL_I32, BL_SCALAR, 0);
    for (int64_t i = 0; i < blocks; i++) {
        x = bl_add(x, attend(f, norm(f, x, f->ln1_g, f->ln1_b, i)));
        bl_tensor tokens = norm(f, x, f->ln2_g, f->ln2_b, i);
        struct widenet_moe m = mixture(f, bl_reshape(tokens, BL_SHAPE(T, width)), i);
        x = bl_add(x, bl_reshape(m.y, bl_type_of(x).shape));
        f->l_balance = bl_add(f->l_balance, m.l_balance);
        f->n_dropped = bl_add(f->n_dropped, m.n_dropped);
    }
    f->y = bl_layer_normalize(x, f->lnf_g, f->lnf_b, f->eps.number);
}

static bool sizes_fit(bl_graph *graph, const struct widenet_encoder *f)
{
    long long D = bl_dim(f->noise, 0), T = bl_dim(f->noise, 1), N = bl_dim(f->ln1_g, 0);
    long long tokens = bl_dim(f->x, 0) * bl_dim(f->x, 1), P = bl_dim(f->w_qkv, 0);
    if (T != tokens || T < 1)
        bl_poison(graph, "noise is of %lld tokens, expected B L, at least 1 (B L is %lld)", T,
                  tokens);
    else if (P < 1 || P % (3 * f->heads))
        bl_poison(graph, "w_qkv has %lld rows, expected a multiple of 3 heads (heads is %lld)", P,
                  (long long)f->heads);
    else if (bl_dim(f->w_o, 1) != P / 3)
        bl_poison(graph, "w_o has %lld columns, expected a third of w_qkv's rows, %lld",
                  (long long)bl_dim(f->w_o, 1), P / 3);
    else if (N != 1 && N != D)
        bl_poison(graph, "ln1_g has %lld rows, expected 1 or one for each block (D is %lld)", N, D);
    else if (!bl_is_number(f->eps))
        bl_poison(graph, "eps is scheduled, expected a number");
    else
        return true;
    return false;
}

/* Block i's layer norm, or the shared one. */
static bl_tensor norm(const struct widenet_encoder *f, bl_tensor x, bl_tensor g, bl_tensor b,
                      int64_t block)
{
    int64_t i = bl_dim(g, 0) == 1 ? 0 : block;
    bl_tensor scale = bl_pick(g, 0, i);
    bl_tensor shift = bl_pick(b, 0, i);
    return bl_layer_normalize(x, scale, shift, f->eps.number);
}

static bl_tensor attend(const struct widenet_encoder *f, bl_tensor x)
{
    int64_t part = bl_dim(f->w_o, 1);
    bl_tensor all = bl_linear(x, f->w_qkv, f->b_qkv);
    bl_tensor q = bl_slice_axis(all, 2, 0, part), k = bl_slice_axis(all, 2, part, 2 * part);
    bl_tensor v = bl_slice_axis(all, 2, 2 * part, 3 * part);
    bl_tensor heads = bl_multi_head_attention(q, k, v, 1, f->heads);
    return bl_linear(heads, f->w_o, f->b_o);
}

/* The shared experts, with block i's noise. */
static struct widenet_moe mixture(const struct widenet_encoder *f, bl_tensor x, int64_t block)
{
    struct widenet_moe m = BL_DEFAULTS(widenet_moe);
    m.x = x, m.w_r = f->w_r, m.w1 = f->w1, m.b1 = f->b1, m.w2 = f->w2, m.b2 = f->b2;
    m.noise = bl_pick(f->noise, 0, block);
    m.k = f->k, m.capacity_factor = f->capacity_factor, m.min_capacity = f->min_capacity;
    m.even_capacity = f->even_capacity, m.balance_div_k = f->balance_div_k;
    m.gelu_tanh = f->gelu_tanh;
    bl_call(widenet_moe, &m);
    return m;
}

const bl_method bl_widenet = {
    .slug = "widenet",
    .family = "scaling",
    .paper = "Xue et al. 2022, arXiv 2107.11817",
    .summary = "(no arm) a transformer whose blocks share attention and a mixture of experts",
    .when = "When parameters, not computing, are the limit. A mixture costs what k experts cost, "
            "times the capacity factor.",
    .functions = {&widenet_moe_contract, &widenet_route_contract, &widenet_encoder_contract},
    .example = "ballast show widenet_moe",
};
