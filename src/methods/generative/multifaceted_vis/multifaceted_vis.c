/* Multifaceted feature visualization. Nguyen, Yosinski and Clune 2016, arXiv 1602.03116. What does
 * a unit of a trained network respond to? The images that excite it are grouped into facets, and
 * gradient ascent starts from the mean image of each, with total-variation denoising after every
 * step: one picture for each facet, where a single ascent mixes them.
 *
 * The first half of this file finds the facets, the second climbs. What is missing between them,
 * the gradient of a unit in its input, is bl_grad. */
#include "methods/method.h"
#include "ballast/solve.h"

static void store(const double *values, bl_array *out)
{
    int64_t count = bl_array_count(out);
    for (int64_t i = 0; i < count; i++)
        bl_f32(out)[i] = (float)values[i];
}

/* --- finding the facets ----------------------------------------------------------------------- */

#define MULTIFACETED_VIS_PCA(IN, OPT, OUT)                                                         \
    IN(x, "f32[N,D]", "", "codes of the images, from a late layer")                                \
    OPT(k, BL_REQUIRED_INTEGER, ">= 1", "directions, at most the smaller of N and D")              \
    OUT(scores, "f32[N,k]", "the centred codes along each")                                        \
    OUT(variance, "f32[k]", "of the scores, divided by N - 1")                                     \
    OUT(components, "f32[k,D]", "unit directions, the largest entry of each positive")

/* The k largest singular values of x[N,D], squared, and their right vectors, [k,D]. Where x is not
 * wide they are the eigenvalues and eigenvectors of x^T x, which is small. */
static void leading_directions(bl_tensor x, int64_t k, bl_tensor *square, bl_tensor *components)
{
    int64_t N = bl_dim(x, 0), D = bl_dim(x, 1);
    bl_tensor u, s, v;
    if (N < D) {
        bl_truncated_svd(x, k, &u, &s, &v);
        *square = bl_square(s);
        *components = bl_transpose(v, 1, 0);
        return;
    }
    bl_tensor last = bl_sub((double)(D - 1), bl_iota(x.graph, BL_I32, BL_SHAPE(k), 0));
    bl_eigh(bl_dot(x, x, true, false), &s, &v); /* ascending */
    *square = bl_max(bl_take(s, last), 0);
    *components = bl_take(bl_transpose(v, 1, 0), last);
}

BL_CONTRACT(multifaceted_vis_pca, MULTIFACETED_VIS_PCA, "the directions that vary most")
{
    int64_t N = bl_dim(f->x, 0), D = bl_dim(f->x, 1), most = N < D ? N : D;
    if (N < 2 || f->k > most) {
        bl_poison(graph,
                  "option k is %lld and x has %lld rows, expected two rows and k at most %lld",
                  (long long)f->k, (long long)N, (long long)most);
        return;
    }
    bl_tensor x = bl_cast(f->x, BL_F64), square, v;
    x = bl_sub(x, bl_mean_keep(x, 0));
    leading_directions(x, f->k, &square, &v);
    bl_tensor largest = bl_expand(bl_argmax(bl_abs(v), 1), 1);
    v = bl_select(bl_lt(bl_take_along(v, largest, 1), 0), bl_neg(v), v);
    f->scores = bl_cast(bl_dot(x, v, false, true), BL_F32);
    f->variance = bl_cast(bl_div(square, (double)(N - 1)), BL_F32);
    f->components = bl_cast(v, BL_F32);
}

#define MULTIFACETED_VIS_TSNE_AFFINITY(IN, OPT, OUT)                                               \
    IN(x, "f32[N,D]", "", "points")                                                                \
    OPT(perplexity, 30.0, "> 1", "how many neighbours a point has, below N - 1")                   \
    OUT(p, "f32[N,N]", "symmetric, of sum 1, 0 on the diagonal")

BL_HOST(multifaceted_vis_tsne_affinity, MULTIFACETED_VIS_TSNE_AFFINITY,
        "who is whose neighbour, with probabilities (van der Maaten and Hinton 2008)")
{
    int64_t N = f->x.type.shape.dim[0], D = f->x.type.shape.dim[1];
    if (!(f->perplexity < (double)(N - 1)))
        return bl_fail(BL_INVALID, "option perplexity is %g, expected below N - 1 (%lld)",
                       f->perplexity, (long long)(N - 1));
    size_t bytes = (size_t)(N * N) * sizeof(double);
    double *x = bl_array_doubles(&f->x), *p = bl_alloc(bytes);
    bl_status status = x && p ? bl_tsne_affinities(x, N, D, f->perplexity, p) : bl_no_memory(bytes);
    if (status == BL_OK)
        store(p, &f->p);
    bl_release(x);
    bl_release(p);
    return status;
}

#define MULTIFACETED_VIS_TSNE_KL(IN, OPT, OUT)                                                     \
    IN(y, "f32[N,2]", "grad, rows > 0", "the map")                                                 \
    IN(p, "f32[N,N]", "", "multifaceted_vis_tsne_affinity")                                        \
    OPT(eps, 1e-12, "(0,inf)", "least probability in a logarithm")                                 \
    OUT(kl, "f32[]", "divergence of the map's neighbours from p")

/* |y_i - y_j|^2 of points of the plane, [N,N], coordinate by coordinate. */
static bl_tensor distances_in_plane(bl_tensor y)
{
    bl_tensor distance[2];
    for (int c = 0; c < 2; c++) {
        bl_tensor x = bl_pick(y, 1, c);
        distance[c] = bl_square(bl_sub(bl_expand(x, 1), bl_expand(x, 0)));
    }
    return bl_add(distance[0], distance[1]);
}

/* q_ij = w_ij / (sum of w off the diagonal), w = 1 / (1 + |y_i - y_j|^2) */
BL_CONTRACT(multifaceted_vis_tsne_kl, MULTIFACETED_VIS_TSNE_KL, "what t-SNE minimises")
{
    bl_shape square = bl_type_of(f->p).shape;
    bl_tensor itself = bl_eq(bl_iota(graph, BL_I32, square, 0), bl_iota(graph, BL_I32, square, 1));
    bl_tensor near = bl_div(1, bl_add(1, distances_in_plane(f->y)));
    bl_tensor w = bl_select(itself, 0, near), total = bl_sum(w);
    bl_tensor q = bl_div(w, bl_select(bl_gt(total, 0), total, 1));
    bl_tensor log_ratio = bl_sub(bl_log(bl_max(f->p, f->eps)), bl_log(bl_max(q, f->eps)));
    f->kl = bl_sum(bl_mul(f->p, log_ratio));
}

#define MULTIFACETED_VIS_KMEANS(IN, OPT, OUT)                                                      \
    IN(y, "f32[N,d]", "", "points")                                                                \
    IN(init, "f32[K,d]", "rows > 0", "centroids to start from")                                    \
    OPT(iterations, BL_REQUIRED_INTEGER, ">= 0", "most turns of averaging and assigning")          \
    OUT(centroids, "f32[K,d]", "means of the clusters; one without points keeps its place")        \
    OUT(assignment, "i32[N]", "nearest centroid, the lowest of equals")

BL_HOST(multifaceted_vis_kmeans, MULTIFACETED_VIS_KMEANS, "k-means (Lloyd 1982)")
{
    int64_t N = f->y.type.shape.dim[0], K = f->init.type.shape.dim[0], d = f->y.type.shape.dim[1];
    double *y = bl_array_doubles(&f->y), *centroid = bl_array_doubles(&f->init);
    bl_status status = y && centroid
                           ? bl_kmeans(y, N, d, K, f->iterations, centroid, bl_i32(&f->assignment))
                           : bl_no_memory((size_t)((N + K) * d) * sizeof(double));
    if (status == BL_OK)
        store(centroid, &f->centroids);
    bl_release(y);
    bl_release(centroid);
    return status;
}

#define MULTIFACETED_VIS_MEAN_IMAGES(IN, OPT, OUT)                                                 \
    IN(images, "f32[N,S...]", "", "the images behind the points")                                  \
    IN(y, "f32[N,2]", "", "points of the map")                                                     \
    IN(centroids, "f32[K,2]", "", "of the clusters")                                               \
    IN(assignment, "i32[N]", "0 <= . < K", "cluster of each point")                                \
    OPT(m, 15, ">= 1", "images that are averaged")                                                 \
    OUT(mean_image, "f32[K,S...]", "mean of the images nearest to each centroid")                  \
    OUT(index, "i32[K,m]", "which they are, nearest first, the lowest of equals; -1: no more")     \
    OUT(count, "i32[K]", "how many")

struct multifaceted_vis_mean_images;
static bl_status nearest_members(const struct multifaceted_vis_mean_images *f, int64_t c,
                                 double *distance, int64_t *order, int32_t *member);
static void average(struct multifaceted_vis_mean_images *f, int64_t c);

BL_HOST(multifaceted_vis_mean_images, MULTIFACETED_VIS_MEAN_IMAGES, "one image for each facet")
{
    int64_t N = f->y.type.shape.dim[0], K = f->centroids.type.shape.dim[0];
    size_t bytes = (size_t)(N + 1) * (sizeof(double) + sizeof(int64_t) + sizeof(int32_t));
    double *distance = bl_alloc(bytes);
    if (!distance)
        return bl_no_memory(bytes);
    int64_t *order = (int64_t *)(distance + N + 1);
    int32_t *member = (int32_t *)(order + N + 1);
    bl_status status = BL_OK;
    for (int64_t c = 0; c < K && status == BL_OK; c++) {
        status = nearest_members(f, c, distance, order, member);
        if (status == BL_OK)
            average(f, c);
    }
    bl_release(distance);
    return status;
}

/* Fills row c of index, and its count. The other arrays are scratch for N points: the members of
 * the cluster, how far they are from its centroid, and their order by that. */
static bl_status nearest_members(const struct multifaceted_vis_mean_images *f, int64_t c,
                                 double *distance, int64_t *order, int32_t *member)
{
    const float *centre = bl_f32(&f->centroids) + 2 * c, *y = bl_f32(&f->y);
    int32_t members = 0, N = (int32_t)f->y.type.shape.dim[0];
    for (int32_t i = 0; i < N; i++) {
        double dx = (double)y[2 * i] - (double)centre[0];
        double dy = (double)y[2 * i + 1] - (double)centre[1];
        if (bl_i32(&f->assignment)[i] != c)
            continue;
        distance[members] = dx * dx + dy * dy;
        member[members++] = i;
    }
    BL_TRY(bl_ascending_order(distance, members, order));
    for (int64_t i = 0; i < f->m; i++)
        bl_i32(&f->index)[c * f->m + i] = i < members ? member[order[i]] : -1;
    bl_i32(&f->count)[c] = members < f->m ? members : (int32_t)f->m;
    return BL_OK;
}

static void average(struct multifaceted_vis_mean_images *f, int64_t c)
{
    int64_t K = f->centroids.type.shape.dim[0], size = bl_array_count(&f->mean_image) / K;
    const int32_t *index = bl_i32(&f->index) + c * f->m, count = bl_i32(&f->count)[c];
    for (int64_t j = 0; j < size && count > 0; j++) {
        double sum = 0;
        for (int32_t i = 0; i < count; i++)
            sum += (double)bl_f32(&f->images)[index[i] * size + j];
        bl_f32(&f->mean_image)[c * size + j] = (float)(sum / count);
    }
}

/* --- climbing --------------------------------------------------------------------------------- */

#define MULTIFACETED_VIS_STEP(IN, OPT, OUT)                                                        \
    IN(x, "f32[H,W,C]", "", "the image minus the mean of each channel")                            \
    IN(grad, "f32[H,W,C]", "", "of the unit in it")                                                \
    IN(mean, "f32[C]", "", "of each channel")                                                      \
    OPT(step_size, BL_REQUIRED, "finite", "mean change of a pixel")                                \
    OPT(margin, 0, ">= 0", "rows and columns at each border that stay")                            \
    OPT(lo, 0.0, "finite", "lowest value of a pixel, mean included")                               \
    OPT(hi, 255.0, "finite, >= lo", "highest")                                                     \
    OUT(x_out, "f32[H,W,C]", "x + step_size grad / mean |grad|, cut to lo..hi")

static bool is_within(const bl_shape *shape, int64_t i, int64_t margin)
{
    int64_t H = shape->dim[0], W = shape->dim[1], pixel = i / shape->dim[2];
    int64_t row = pixel / W, column = pixel % W;
    return row >= margin && row < H - margin && column >= margin && column < W - margin;
}

static bl_contract_check multifaceted_vis_step_check;

/* Whether row or column i of `size` lies within the margin. */
static bl_tensor inside(bl_graph *graph, int64_t size, int64_t margin)
{
    bl_tensor i = bl_iota(graph, BL_I32, BL_SHAPE(size), 0);
    return bl_and(bl_ge(i, (double)margin), bl_lt(i, (double)(size - margin)));
}

BL_CONTRACT_CHECKED(multifaceted_vis_step, MULTIFACETED_VIS_STEP, "a step of gradient ascent",
                    multifaceted_vis_step_check)
{
    int64_t H = bl_dim(f->x, 0), W = bl_dim(f->x, 1);
    bl_tensor rows = bl_reshape(inside(graph, H, f->margin), BL_SHAPE(H, 1, 1));
    bl_tensor columns = bl_reshape(inside(graph, W, f->margin), BL_SHAPE(1, W, 1));
    bl_tensor grad = bl_select(bl_and(rows, columns), f->grad, 0);
    bl_tensor size = bl_mean(bl_abs(grad)), rate = bl_div(f->step_size, size);
    bl_tensor step = bl_mul(bl_select(bl_gt(size, 0), rate, 0), grad);
    f->x_out = bl_clamp(bl_add(f->x, step), bl_sub(f->lo, f->mean), bl_sub(f->hi, f->mean));
}

static bl_status multifaceted_vis_step_check(const bl_dictionary *in, const void *options)
{
    const bl_array *grad = bl_dictionary_find(in, "grad");
    int64_t margin = ((const struct multifaceted_vis_step *)options)->margin;
    for (int64_t i = 0; i < bl_array_count(grad); i++)
        if (bl_f32(grad)[i] != 0 && is_within(&grad->type.shape, i, margin))
            return BL_OK;
    return bl_fail(BL_INVALID, "grad is 0 everywhere within a margin of %lld, expected a direction",
                   (long long)margin);
}

#define MULTIFACETED_VIS_CROP_OFFSET(IN, OPT, OUT)                                                 \
    IN(normal, "f32[2]", "finite", "standard normal, for x and y")                                 \
    OPT(full, BL_REQUIRED_INTEGER, ">= crop", "side of the image")                                 \
    OPT(crop, BL_REQUIRED_INTEGER, ">= 1", "side of the network's input")                          \
    OPT(window, 0.3, "finite", "deviation from the centre, in parts of the room")                  \
    OUT(offset, "i32[2]", "where the crop begins")

BL_CONTRACT(multifaceted_vis_crop_offset, MULTIFACETED_VIS_CROP_OFFSET,
            "which part of the image the network sees next")
{
    double room = (double)(f->full - f->crop);
    bl_tensor spread = bl_mul(room, bl_cast(f->window, BL_F64));
    bl_tensor at = bl_add(bl_mul(spread, bl_cast(f->normal, BL_F64)), room / 2);
    f->offset = bl_cast(bl_clamp(at, 0, room), BL_I32);
}

#define MULTIFACETED_VIS_SCHEDULE(IN, OPT, OUT)                                                    \
    IN(i, "f32[]", "", "the iteration, 0 to n - 1")                                                \
    OPT(n, BL_REQUIRED_INTEGER, ">= 1", "iterations of the phase")                                 \
    OPT(start_step, BL_REQUIRED, "finite", "step size at first")                                   \
    OPT(end_step, BL_REQUIRED, "finite", "after the last iteration")                               \
    OPT(start_weight, BL_REQUIRED, "finite", "weight of the denoising at first")                   \
    OPT(end_weight, BL_REQUIRED, "finite", "after the last iteration")                             \
    OUT(step_size, "f32[]", "linear in i / n")                                                     \
    OUT(weight, "f32[]", "likewise")

static bl_tensor linear(bl_tensor share, bl_tensor start, bl_tensor end)
{
    return bl_add(start, bl_mul(share, bl_sub(end, start)));
}

BL_CONTRACT(multifaceted_vis_schedule, MULTIFACETED_VIS_SCHEDULE, "step and weight within a phase")
{
    bl_tensor share = bl_div(f->i, (double)f->n);
    f->step_size = linear(share, f->start_step, f->end_step);
    f->weight = linear(share, f->start_weight, f->end_weight);
}

#define MULTIFACETED_VIS_ZOOM(IN, OPT, OUT)                                                        \
    IN(x, "f32[H,W,C]", "grad", "an image")                                                        \
    OPT(scale, 1.2, "(0,inf)", "of both sides; not scheduled")                                     \
    OUT(out, "f32[?,?,C]", "sides rounded, halves to even; corners stay")

BL_CONTRACT(multifaceted_vis_zoom, MULTIFACETED_VIS_ZOOM, "a larger image, bilinear")
{
    if (!bl_is_number(f->scale)) {
        bl_poison(graph, "option scale is scheduled, expected a number");
        return;
    }
    double H = rint((double)bl_dim(f->x, 0) * f->scale.number);
    double W = rint((double)bl_dim(f->x, 1) * f->scale.number);
    if (!(H >= 1 && W >= 1 && H <= 65536 && W <= 65536)) {
        bl_poison(graph, "option scale is %g and makes the image %g x %g, expected 1 to 65536",
                  f->scale.number, H, W);
        return;
    }
    f->out = bl_squeeze(bl_resize_aligned(bl_expand(f->x, 0), (int64_t)H, (int64_t)W), 0);
}

/* --- denoising -------------------------------------------------------------------------------- */

#define MULTIFACETED_VIS_TV_BREGMAN(IN, OPT, OUT)                                                  \
    IN(image, "f32[H,W,C]", "", "values of any range")                                             \
    OPT(weight, 0.4, "(0,inf)", "of the data: smaller is smoother")                                \
    OPT(max_iter, 100, ">= 0", "sweeps")                                                           \
    OPT(eps, 1e-3, "[0,inf)", "a root mean square change of a sweep that ends it")                 \
    OPT(isotropic, 1, "flag", "shrink both differences of a pixel together, or each alone")        \
    OUT(out, "f32[H,W,C]", "the smoother image")                                                   \
    OUT(iterations, "i32[]", "sweeps done")

/* Split Bregman (Goldstein and Osher 2009) in the form of scikit-image: u is the image within a
 * frame of one fixed pixel, d its differences as they should be, b what they still lack. A sweep
 * updates pixel by pixel in place, so it stays in one thread and in this order. */
typedef struct bregman {
    int64_t H, W, C;
    double *u, *dx, *dy, *bx, *by; /* [H+2,W+2,C] */
    double weight, lambda;
    bool isotropic;
} bregman;

static double soft(double t, double threshold)
{
    return t > threshold ? t - threshold : t < -threshold ? t + threshold : 0;
}

/* The framed image: f's second row and column before it, its last ones behind, corners 0. */
static void frame(const bregman *s, const float *f)
{
    int64_t H = s->H, W = s->W, C = s->C;
    for (int64_t r = 0; r < H + 2; r++)
        for (int64_t c = 0; c < W + 2; c++) {
            bool corner = (r == 0 || r == H + 1) && (c == 0 || c == W + 1);
            int64_t row = r == 0 ? 1 : r > H ? H - 1 : r - 1;
            int64_t column = c == 0 ? 1 : c > W ? W - 1 : c - 1;
            for (int64_t k = 0; k < C; k++)
                s->u[(r * (W + 2) + c) * C + k] =
                    corner ? 0 : (double)f[(row * W + column) * C + k];
        }
}

/* The differences of element i that were ux, uy before its update. */
static void shrink(const bregman *s, int64_t i, double ux, double uy)
{
    double tx = ux + s->bx[i], ty = uy + s->by[i], lambda = s->lambda, dx, dy;
    if (s->isotropic) {
        double length = sqrt(tx * tx + ty * ty), scale = length * lambda;
        dx = scale * tx / (scale + 1);
        dy = scale * ty / (scale + 1);
    } else {
        dx = soft(tx, 1 / lambda);
        dy = soft(ty, 1 / lambda);
    }
    s->bx[i] += ux - dx;
    s->by[i] += uy - dy;
    s->dx[i] = dx;
    s->dy[i] = dy;
}

/* One sweep; returns the sum of the squared changes. */
static double sweep(const bregman *s, const float *f)
{
    double *u = s->u, *dx = s->dx, *dy = s->dy, *bx = s->bx, *by = s->by, change = 0;
    int64_t left = s->C, up = (s->W + 2) * s->C; /* to the element's neighbours */
    for (int64_t r = 1; r <= s->H; r++) {
        int64_t first = r * up + left;
        const float *row = f + (r - 1) * s->W * s->C;
        for (int64_t i = first; i < first + s->W * s->C; i++) {
            double old = u[i], ux = u[i + left] - old, uy = u[i + up] - old;
            double around = u[i + up] + u[i - up] + u[i + left] + u[i - left] + dx[i - left] -
                            dx[i] + dy[i - up] - dy[i] - bx[i - left] + bx[i] - by[i - up] + by[i];
            u[i] = (s->lambda * around + s->weight * (double)row[i - first]) /
                   (s->weight + 4 * s->lambda);
            change += (u[i] - old) * (u[i] - old);
            shrink(s, i, ux, uy);
        }
    }
    return change;
}

BL_HOST(multifaceted_vis_tv_bregman, MULTIFACETED_VIS_TV_BREGMAN, "total-variation denoising")
{
    int64_t H = f->image.type.shape.dim[0], W = f->image.type.shape.dim[1];
    int64_t C = f->image.type.shape.dim[2], framed = (H + 2) * (W + 2) * C, done = 0;
    if (H < 2 || W < 2)
        return bl_fail(BL_INVALID, "image is %lld x %lld, expected at least 2 x 2", (long long)H,
                       (long long)W);
    size_t bytes = (size_t)(5 * framed + 1) * sizeof(double);
    double *m = bl_alloc(bytes), change = INFINITY;
    if (!m)
        return bl_no_memory(bytes);
    bregman s = {H,
                 W,
                 C,
                 m,
                 m + framed,
                 m + 2 * framed,
                 m + 3 * framed,
                 m + 4 * framed,
                 f->weight,
                 2 * f->weight,
                 f->isotropic};
    frame(&s, bl_f32(&f->image));
    while (done < f->max_iter && change > f->eps) {
        change = sqrt(sweep(&s, bl_f32(&f->image)) / (double)(H * W * C));
        done++;
    }
    for (int64_t r = 0; r < H; r++)
        for (int64_t i = 0; i < W * C; i++)
            bl_f32(&f->out)[r * W * C + i] = (float)s.u[((r + 1) * (W + 2) + 1) * C + i];
    bl_array_set(&f->iterations, 0, (double)done);
    bl_release(m);
    return BL_OK;
}

const bl_method bl_multifaceted_vis = {
    .slug = "multifaceted_vis",
    .family = "generative",
    .paper = "Nguyen et al. 2016, arXiv 1602.03116",
    .summary = "(no arm) draws what a unit of a network responds to, one picture for each facet",
    .when = "Explaining a trained classifier: a unit that responds to several kinds of images is "
            "shown kind by kind. Costs passes through the network, none in training.",
    .functions = {&multifaceted_vis_step_contract, &multifaceted_vis_tv_bregman_contract,
                  &multifaceted_vis_pca_contract, &multifaceted_vis_tsne_affinity_contract,
                  &multifaceted_vis_tsne_kl_contract, &multifaceted_vis_kmeans_contract,
                  &multifaceted_vis_mean_images_contract, &multifaceted_vis_crop_offset_contract,
                  &multifaceted_vis_schedule_contract, &multifaceted_vis_zoom_contract},
    .example = "ballast show multifaceted_vis_step",
};
