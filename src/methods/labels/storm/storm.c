/* STORM, self-taught on-the-fly meta loss rescaling. Heck et al., AAAI 2025, arXiv 2412.12955. A
 * tiny network, Omega, maps statistics of an example's losses and confidences to the weight of that
 * example. It is learned during training, without clean data: after a virtual weighted step of the
 * model, the weighted loss on other examples of the same noisy set is minimised in Omega.
 *
 * Losses are sums over the batch, as in the paper. inner_rule adam_first is what the released code
 * computes (an optimiser whose state is empty at every step); sgd is the paper's text. */
#include "methods/method.h"

/* --- two normal densities --------------------------------------------------------------------- */

/* KL(N(m1,s1) || N(m2,s2)), 0 where a deviation is 0. */
static bl_tensor normal_kl(bl_tensor m1, bl_tensor s1, bl_tensor m2, bl_tensor s2)
{
    bl_tensor some = bl_and(bl_gt(s1, 0), bl_gt(s2, 0));
    s1 = bl_select(some, s1, 1);
    s2 = bl_select(some, s2, 1);
    bl_tensor far = bl_add(bl_square(s1), bl_square(bl_sub(m1, m2)));
    bl_tensor kl = bl_add(bl_log(bl_div(s2, s1)), bl_div(far, bl_mul(2, bl_square(s2))));
    return bl_select(some, bl_sub(kl, 0.5), 0);
}

static bl_tensor normal_cdf(bl_tensor x, bl_tensor m, bl_tensor s)
{
    return bl_mul(0.5, bl_add(1, bl_erf(bl_div(bl_sub(x, m), bl_mul(sqrt(2), s)))));
}

/* What the two distributions differ by below x. */
static bl_tensor cdf_gap(bl_tensor x, bl_tensor m1, bl_tensor s1, bl_tensor m2, bl_tensor s2)
{
    return bl_abs(bl_sub(normal_cdf(x, m2, s2), normal_cdf(x, m1, s1)));
}

/* The area under both densities: 1 less their gaps where they cross (Inman and Bradley 1989). */
static bl_tensor normal_overlap(bl_tensor ma, bl_tensor sa, bl_tensor mb, bl_tensor sb)
{
    sa = bl_max(sa, 1e-8);
    sb = bl_max(sb, 1e-8);
    bl_tensor swap = bl_or(bl_lt(sb, sa), bl_and(bl_eq(sb, sa), bl_lt(mb, ma)));
    bl_tensor m1 = bl_select(swap, mb, ma), m2 = bl_select(swap, ma, mb);
    bl_tensor s1 = bl_select(swap, sb, sa), s2 = bl_select(swap, sa, sb);
    bl_tensor v1 = bl_square(s1), v2 = bl_square(s2), dv = bl_sub(v2, v1);
    bl_tensor dm = bl_abs(bl_sub(m2, m1)), alike = bl_eq(dv, 0);
    bl_tensor shifted = bl_sub(1, bl_erf(bl_div(dm, bl_mul(2 * sqrt(2), s1))));

    dv = bl_select(alike, 1, dv);
    bl_tensor a = bl_sub(bl_mul(m1, v2), bl_mul(m2, v1));
    bl_tensor inner = bl_add(bl_square(dm), bl_mul(dv, bl_log(bl_div(v2, v1))));
    bl_tensor b = bl_mul(bl_mul(s1, s2), bl_sqrt(inner));
    bl_tensor right = cdf_gap(bl_div(bl_add(a, b), dv), m1, s1, m2, s2);
    bl_tensor left = cdf_gap(bl_div(bl_sub(a, b), dv), m1, s1, m2, s2);
    return bl_select(alike, shifted, bl_sub(1, bl_add(right, left)));
}

/* --- the features of Omega -------------------------------------------------------------------- */

enum { QUANTITIES = 4, FEATURES = 19 }; /* loss mean and deviation, confidence mean and deviation */

/* Unbiased deviation along axis 0; 0 of a single value. */
static bl_tensor deviation(bl_tensor x)
{
    double count = (double)bl_dim(x, 0);
    return bl_sqrt(bl_div(bl_mul(count, bl_variance(x, 0)), fmax(count - 1, 1)));
}

/* [B] each -> [B,count] */
static bl_tensor as_columns(const bl_tensor *x, int count)
{
    bl_tensor column[FEATURES];
    for (int i = 0; i < count; i++)
        column[i] = bl_expand(x[i], 1);
    return bl_concat(column, count, 1);
}

/* i32[B]: 1 where more than half of the passes predict the label; a tie is decided by pass 0. */
static bl_tensor agreement(bl_tensor logits, bl_tensor labels)
{
    bl_tensor hit = bl_cast(bl_eq(bl_argmax(logits, -1), labels), BL_I32); /* [G,B] */
    bl_tensor twice = bl_mul(2, bl_sum(hit, 0)), first = bl_pick(hit, 0, 0);
    double passes = (double)bl_dim(logits, 0);
    return bl_select(bl_eq(twice, passes), first, bl_cast(bl_gt(twice, passes), BL_I32));
}

/* rows[B,Q] are appended to the list of each, mem[L,W,Q], of which the last W are kept. `list` and
 * `count` are i32; *count becomes the new ones. Each row is written to its place in the flat
 * [L W + 1,Q]; the last place takes what falls out. */
static bl_tensor remember(bl_tensor mem, bl_tensor *count, bl_tensor list, bl_tensor rows)
{
    bl_graph *graph = mem.graph;
    int64_t L = bl_dim(mem, 0), W = bl_dim(mem, 1), Q = bl_dim(mem, 2), B = bl_dim(rows, 0);
    bl_tensor same = bl_eq(bl_expand(list, 1), bl_expand(list, 0));
    bl_tensor earlier =
        bl_lt(bl_iota(graph, BL_I32, BL_SHAPE(B, B), 1), bl_iota(graph, BL_I32, BL_SHAPE(B, B), 0));
    bl_tensor rank = bl_sum(bl_cast(bl_and(same, earlier), BL_I32), 1);
    bl_tensor total = bl_add(*count, bl_sum(bl_onehot(list, L, BL_I32), 0));
    bl_tensor drop = bl_max(bl_sub(total, (double)W), 0);

    bl_tensor slot = bl_iota(graph, BL_I32, BL_SHAPE(L, W), 1), row = bl_expand(drop, 1);
    bl_tensor kept = bl_and(bl_lt(slot, bl_expand(*count, 1)), bl_ge(slot, row));
    bl_tensor base = bl_mul(bl_iota(graph, BL_I32, BL_SHAPE(L, W), 0), (double)W);
    bl_tensor old = bl_select(kept, bl_add(base, bl_sub(slot, row)), (double)(L * W));

    bl_tensor place = bl_add(bl_take(bl_sub(*count, drop), list), rank);
    bl_tensor fresh = bl_add(bl_mul(list, (double)W), place);
    fresh = bl_select(bl_ge(place, 0), fresh, (double)(L * W));

    bl_tensor to[] = {bl_reshape(old, BL_SHAPE(L * W)), fresh};
    bl_tensor what[] = {bl_reshape(mem, BL_SHAPE(L * W, Q)), rows};
    bl_tensor flat = bl_full(graph, bl_type_of(mem).dtype, BL_SHAPE(L * W + 1, Q), 0);
    flat = bl_add_at(flat, bl_concat(to, 2, 0), bl_concat(what, 2, 0));
    *count = bl_min(total, (double)W);
    return bl_reshape(bl_slice_axis(flat, 0, 0, L * W), BL_SHAPE(L, W, Q));
}

/* Mean and unbiased deviation of v[B,W] over the members of each row's group; the deviation of
 * fewer than two is 1e-8. */
static void group_statistics(bl_tensor v, bl_tensor member, bl_tensor *mean, bl_tensor *sd)
{
    bl_tensor n = bl_sum(bl_cast(member, BL_F64), 1);
    *mean = bl_div(bl_sum(bl_select(member, v, 0), 1), bl_max(n, 1));
    bl_tensor away = bl_select(member, bl_sub(v, bl_expand(*mean, 1)), 0);
    bl_tensor var = bl_div(bl_sum(bl_square(away), 1), bl_max(bl_sub(n, 1), 1));
    *sd = bl_select(bl_ge(n, 2), bl_sqrt(var), 1e-8);
}

typedef bl_tensor comparison(bl_tensor m1, bl_tensor s1, bl_tensor m2, bl_tensor s2);

/* Three features: the example's own comparison with its group, and mean and deviation of those of
 * all members. q and members' values are those of the loss, group[0] and group[1] their means. */
static void compare_with_group(comparison *compare, const bl_tensor *q, const bl_tensor *members,
                               const bl_tensor *group, bl_tensor member, bl_tensor feature[3])
{
    feature[0] = compare(q[0], q[1], group[0], group[1]);
    bl_tensor rows =
        compare(members[0], members[1], bl_expand(group[0], 1), bl_expand(group[1], 1));
    group_statistics(rows, member, &feature[1], &feature[2]);
}

/* q[B] are the quantities of the batch, rows[B,W,Q+1] those of each example's list with its
 * agreement, member[B,W] says which of them are its group. */
static bl_tensor all_features(const bl_tensor *q, bl_tensor rows, bl_tensor member, bl_tensor agree)
{
    bl_tensor feature[FEATURES], members[QUANTITIES], mean[QUANTITIES];
    for (int i = 0; i < QUANTITIES; i++) {
        members[i] = bl_select(member, bl_pick(rows, 2, i), 0);
        feature[3 * i] = q[i];
        group_statistics(members[i], member, &mean[i], &feature[3 * i + 2]);
        feature[3 * i + 1] = mean[i];
    }
    compare_with_group(normal_kl, q, members, mean, member, feature + 12);
    compare_with_group(normal_overlap, q, members, mean, member, feature + 15);
    feature[18] = bl_cast(agree, BL_F64);
    return as_columns(feature, FEATURES);
}

#define STORM_FEATURES(IN, OPT, OUT)                                                               \
    IN(losses, "f32[G,B]", "rows > 0", "cross-entropy in each pass; 0 is trained on")              \
    IN(logits, "f32[G,B,C]", "", "outputs of each pass")                                           \
    IN(labels, "i32[B]", "0 <= . < C", "given class, perhaps wrong")                               \
    IN(mem, "f32[L,W,4]", "", "what was seen of each class, oldest first")                         \
    IN(mem_agree, "i32[L,W]", "in {0,1}", "whether it agreed with its label")                      \
    IN(mem_count, "i32[L]", "0 <= . <= W", "rows that are filled")                                 \
    OPT(by_class, 1, "flag", "a list for each class (L = C), else one")                            \
    OPT(by_agreement, 1, "flag", "compare with rows that agree alike")                             \
    OUT(features, "f32[B,19]", "own value, group mean and deviation of six statistics; CAT")       \
    OUT(mem_new, "f32[L,W,4]", "with this batch, the last W of each list")                         \
    OUT(mem_agree_new, "i32[L,W]", "likewise")                                                     \
    OUT(mem_count_new, "i32[L]", "likewise")

BL_CONTRACT(storm_features, STORM_FEATURES, "the inputs of Omega; constants, in double")
{
    int64_t lists = f->by_class ? bl_dim(f->logits, 2) : 1, W = bl_dim(f->mem, 1);
    if (bl_dim(f->mem, 0) != lists) {
        bl_poison(graph, "mem has %lld lists, expected %lld (by_class: one for each class; else 1)",
                  (long long)bl_dim(f->mem, 0), (long long)lists);
        return;
    }
    bl_tensor losses = bl_cast(bl_stop_gradient(f->losses), BL_F64);
    bl_tensor logits = bl_cast(bl_stop_gradient(f->logits), BL_F64);
    bl_tensor top = bl_reduce_max(bl_softmax(logits, -1), -1);
    bl_tensor agree = agreement(f->logits, f->labels);
    bl_tensor list = f->by_class ? f->labels : bl_zeros_like(f->labels);
    bl_tensor q[] = {bl_mean(losses, 0), deviation(losses), bl_mean(top, 0), deviation(top),
                     bl_cast(agree, BL_F64)};

    bl_tensor mem[] = {bl_cast(bl_stop_gradient(f->mem), BL_F64),
                       bl_expand(bl_cast(f->mem_agree, BL_F64), 2)};
    bl_tensor count = f->mem_count;
    bl_tensor bank = remember(bl_concat(mem, 2, 2), &count, list, as_columns(q, QUANTITIES + 1));
    bl_tensor flag = bl_cast(bl_pick(bank, 2, 4), BL_I32);

    bl_tensor slot = bl_iota(graph, BL_I32, BL_SHAPE(bl_dim(f->labels, 0), W), 1);
    bl_tensor member = bl_lt(slot, bl_expand(bl_take(count, list), 1));
    if (f->by_agreement)
        member = bl_and(member, bl_eq(bl_take(flag, list), bl_expand(agree, 1)));

    f->features = bl_cast(all_features(q, bl_take(bank, list), member, agree), BL_F32);
    f->mem_new = bl_cast(bl_slice_axis(bank, 2, 0, QUANTITIES), BL_F32);
    f->mem_agree_new = flag;
    f->mem_count_new = count;
}

/* --- Omega ------------------------------------------------------------------------------------ */

#define STORM_RESCALER(IN, OPT, OUT)                                                               \
    IN(features, "f32[B,F]", "", "of storm_features; constants here")                              \
    IN(labels, "i32[B]", "", "which net weighs an example, if there are many")                     \
    IN(w1, "f32[L,F,F]", "grad", "a net for each class, or one for all")                           \
    IN(b1, "f32[L,F]", "grad", "batch normalisation takes it out again")                           \
    IN(w2, "f32[L,2,F]", "grad", "")                                                               \
    IN(b2, "f32[L,2]", "grad", "batch normalisation takes it out again")                           \
    OPT(output_index, 1, "in {0,1}", "which of two shares is the weight")                          \
    OPT(bn_eps, 1e-5, "(0,inf)", "of batch normalisation")                                         \
    OUT(weights, "f32[B]", "of the examples, in (0,1)")

/* v[L,B,n] with the statistics of the batch, without scale and shift. */
static bl_tensor normalize_batch(bl_tensor v, bl_tensor eps)
{
    bl_tensor away = bl_sub(v, bl_mean_keep(v, 1));
    return bl_mul(away, bl_rsqrt(bl_add(bl_variance_keep(v, 1), eps)));
}

/* x[L,B,F] w[L,n,F] b[L,n] -> [L,B,n] */
static bl_tensor layers(bl_tensor x, bl_tensor w, bl_tensor b)
{
    return bl_add(bl_dot(x, w, false, true), bl_expand(b, 1));
}

static bool has_statistics(bl_tensor features, const char *name)
{
    if (bl_dim(features, 0) >= 2)
        return true;
    bl_poison(features.graph,
              "%s has %lld rows, expected at least 2: a batch of one has no "
              "statistics",
              name, (long long)bl_dim(features, 0));
    return false;
}

static bl_contract_check storm_rescaler_check;

/* Every net sees the whole batch, so its statistics include the examples of other classes. */
BL_CONTRACT_CHECKED(storm_rescaler, STORM_RESCALER, "Omega: statistics to weights",
                    storm_rescaler_check)
{
    int64_t B = bl_dim(f->features, 0), L = bl_dim(f->w1, 0), F = bl_dim(f->features, 1);
    if (!has_statistics(f->features, "features"))
        return;
    bl_tensor x = bl_broadcast(bl_stop_gradient(f->features), BL_SHAPE(L, B, F));
    bl_tensor h = bl_relu(normalize_batch(layers(x, f->w1, f->b1), f->bn_eps));
    bl_tensor o = bl_softmax(normalize_batch(layers(h, f->w2, f->b2), f->bn_eps), -1);

    bl_tensor share =
        bl_reshape(bl_slice_axis(o, 2, f->output_index, f->output_index + 1), BL_SHAPE(L * B));
    bl_tensor net = L == 1 ? bl_zeros_like(f->labels) : f->labels;
    bl_tensor row = bl_iota(graph, BL_I32, BL_SHAPE(B), 0);
    f->weights = bl_take(share, bl_add(bl_mul(net, (double)B), row));
}

/* Labels choose among the nets of w1, where there is more than one. */
static bl_status check_nets(const bl_dictionary *in, const char *name)
{
    const bl_array *labels = bl_dictionary_find(in, name), *w1 = bl_dictionary_find(in, "w1");
    int64_t nets = w1->type.shape.dim[0], count = bl_array_count(labels);
    for (int64_t i = 0; i < count && nets != 1; i++) {
        double label = bl_array_get(labels, i);
        if (!(label >= 0 && label < (double)nets))
            return bl_fail(BL_INVALID, "%s[%lld] is %.0f, expected 0 <= . < L (L is %lld)", name,
                           (long long)i, label, (long long)nets);
    }
    return BL_OK;
}

static bl_status storm_rescaler_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    return check_nets(in, "labels");
}

/* --- the meta step ---------------------------------------------------------------------------- */

#define STORM_META_LOSS(IN, OPT, OUT)                                                              \
    IN(W, "f32[D,C]", "", "linear softmax model: logits x W + b")                                  \
    IN(b, "f32[C]", "", "")                                                                        \
    IN(x, "f32[B,D]", "", "training batch")                                                        \
    IN(labels, "i32[B]", "0 <= . < C", "")                                                         \
    IN(features, "f32[B,F]", "", "of the training batch; constants")                               \
    IN(x_val, "f32[V,D]", "", "other examples of the same noisy set")                              \
    IN(labels_val, "i32[V]", "0 <= . < C", "")                                                     \
    IN(features_val, "f32[V,F]", "", "of those; constants")                                        \
    IN(w1, "f32[L,F,F]", "grad", "Omega, see storm_rescaler")                                      \
    IN(b1, "f32[L,F]", "grad", "")                                                                 \
    IN(w2, "f32[L,2,F]", "grad", "")                                                               \
    IN(b2, "f32[L,2]", "grad", "")                                                                 \
    OPT(inner_lr, 0.1, "[0,inf)", "learning rate of the virtual step")                             \
    OPT(inner_rule, "sgd", "sgd|adam_first", "adam_first: nearly the sign, as released")           \
    OPT(rescale_meta, 1, "flag", "weigh the meta loss with Omega as well")                         \
    OPT(output_index, 1, "in {0,1}", "of Omega")                                                   \
    OPT(bn_eps, 1e-5, "(0,inf)", "of Omega")                                                       \
    OUT(meta_loss, "f32[]", "sum_j wv_j l_j(W', b')")                                              \
    OUT(inner_loss, "f32[]", "sum_i wi_i l_i(W, b)")                                               \
    OUT(weights, "f32[B]", "wi, of the training batch")                                            \
    OUT(W_new, "f32[D,C]", "W after the virtual step")                                             \
    OUT(b_new, "f32[C]", "b after it")

/* g / (|g| + eps), Adam's first step. Written so that its derivative, eps / (|g| + eps)^2, is not a
 * difference of two large numbers. */
static bl_tensor adam_first(bl_tensor g)
{
    const double eps = 1e-8;
    bl_tensor size = bl_sub(1, bl_div(eps, bl_add(bl_abs(g), eps)));
    return bl_select(bl_eq(g, 0), bl_div(g, eps), bl_mul(bl_sign(g), size));
}

static bl_tensor weighted_loss(bl_tensor weights, bl_tensor x, bl_tensor W, bl_tensor b,
                               bl_tensor labels)
{
    bl_tensor logits = bl_add(bl_matmul(x, W), b);
    return bl_sum(bl_mul(weights, bl_cross_entropy_rows(logits, labels)));
}

static bl_contract_check storm_meta_loss_check;

BL_CONTRACT_CHECKED(storm_meta_loss, STORM_META_LOSS, "what Omega is trained on: one meta step",
                    storm_meta_loss_check)
{
    struct storm_rescaler omega = {.w1 = f->w1,
                                   .b1 = f->b1,
                                   .w2 = f->w2,
                                   .b2 = f->b2,
                                   .output_index = f->output_index,
                                   .bn_eps = f->bn_eps};
    bl_tensor theta[] = {f->W, f->b}, g[2], weights_val = bl_number(1);
    if (!has_statistics(f->features, "features") ||
        (f->rescale_meta && !has_statistics(f->features_val, "features_val")))
        return;
    if (f->rescale_meta) {
        omega.features = f->features_val, omega.labels = f->labels_val;
        bl_call(storm_rescaler, &omega);
        weights_val = omega.weights;
    }
    omega.features = f->features, omega.labels = f->labels;
    bl_call(storm_rescaler, &omega);
    f->weights = omega.weights;

    f->inner_loss = weighted_loss(f->weights, f->x, f->W, f->b, f->labels);
    bl_grad(f->inner_loss, theta, 2, g); /* a function of Omega */
    for (int i = 0; i < 2; i++) {
        bl_tensor step = bl_is(f->inner_rule, "sgd") ? g[i] : adam_first(g[i]);
        theta[i] = bl_sub(theta[i], bl_mul(f->inner_lr, step));
    }
    f->W_new = theta[0];
    f->b_new = theta[1];
    f->meta_loss = weighted_loss(weights_val, f->x_val, f->W_new, f->b_new, f->labels_val);
}

static bl_status storm_meta_loss_check(const bl_dictionary *in, const void *options)
{
    BL_TRY(check_nets(in, "labels"));
    return ((const struct storm_meta_loss *)options)->rescale_meta ? check_nets(in, "labels_val")
                                                                   : BL_OK;
}

const bl_method bl_storm = {
    .slug = "storm",
    .family = "labels",
    .paper = "Heck et al. 2025, arXiv 2412.12955",
    .summary = "learns to weigh examples by how their losses behave, without clean data",
    .when = "Unknown label noise, class imbalance included, in text, tables or anything else. "
            "About three times the cost of a plain step.",
    .example = "ballast show storm_features",
    .functions = {&storm_features_contract, &storm_rescaler_contract, &storm_meta_loss_contract},
};
