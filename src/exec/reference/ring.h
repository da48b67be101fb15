/* Sums and products, written once for two kinds of wide element. No include guard: ring.c includes
 * it with WIDE, the element, and RING(name), the name for that element. */

/* x[index[i],..] += rows[i,..], in the order of i. */
static void RING(add_rows)(void *to, const int32_t *index, const void *from, int64_t count,
                           int64_t row)
{
    const WIDE *rows = from;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < row; j++)
            ((WIDE *)to)[index[i] * row + j] += rows[i * row + j];
}

/* x[o,index[o,l,i],i] += updates[o,l,i]; `length` is that of x. */
static void RING(add_along)(void *to, const int32_t *index, const void *from, bl_lanes lanes,
                            int64_t length)
{
    const WIDE *updates = from;
    int64_t at = 0;
    for (int64_t o = 0; o < lanes.outer; o++)
        for (int64_t l = 0; l < lanes.length; l++)
            for (int64_t i = 0; i < lanes.inner; i++, at++)
                ((WIDE *)to)[(o * length + index[at]) * lanes.inner + i] += updates[at];
}

/* Adds up (or multiplies) x into the places of view `to`, whose strides are 0 on reduced axes. */
static void RING(reduce)(const void *from, bl_shape shape, bl_view to, bool product, void *result)
{
    int64_t index[BL_MAX_RANK] = {0}, count = bl_shape_count(shape);
    const WIDE *x = from;
    for (int64_t i = 0; i < count; i++, next_index(shape, index)) {
        WIDE *place = (WIDE *)result + at_index(&to, shape, index);
        *place = product ? *place * x[i] : *place + x[i];
    }
}

static void RING(fill)(void *to, int64_t count, int value)
{
    for (int64_t i = 0; i < count; i++)
        ((WIDE *)to)[i] = (WIDE)value;
}

static void RING(running_sum)(void *data, bl_lanes lanes)
{
    WIDE *x = data;
    for (int64_t o = 0; o < lanes.outer; o++)
        for (int64_t l = 1; l < lanes.length; l++)
            for (int64_t i = 0; i < lanes.inner; i++) {
                int64_t at = (o * lanes.length + l) * lanes.inner + i;
                x[at] += x[at - lanes.inner];
            }
}

static void RING(dot)(const void *left, const void *right, const bl_dot_sizes *s, void *result)
{
    for (int64_t batch = 0; batch < s->batch; batch++) {
        const WIDE *a = (const WIDE *)left + batch * s->m * s->k;
        const WIDE *b = (const WIDE *)right + batch * s->k * s->n;
        WIDE *z = (WIDE *)result + batch * s->m * s->n;
        for (int64_t m = 0; m < s->m; m++)
            for (int64_t k = 0; k < s->k; k++) {
                WIDE x = a[s->transpose_a ? k * s->m + m : m * s->k + k];
                for (int64_t n = 0; n < s->n; n++)
                    z[m * s->n + n] += x * b[s->transpose_b ? n * s->k + k : k * s->n + n];
            }
    }
}

/* One place of the result and one of the window: all channels of all groups. */
static void RING(conv_channels)(bl_op op, const bl_conv_sizes *s, WIDE *x, WIDE *w, WIDE *z)
{
    int64_t in = s->inputs / s->groups, out = s->outputs / s->groups;
    for (int64_t group = 0; group < s->groups; group++)
        for (int64_t i = 0; i < in; i++) {
            WIDE *xi = x + group * in + i, *wi = w + i * s->outputs + group * out;
            WIDE *zo = z + group * out;
            for (int64_t o = 0; o < out; o++)
                if (op == BL_OP_conv)
                    zo[o] += *xi * wi[o];
                else if (op == BL_OP_conv_dx)
                    *xi += zo[o] * wi[o];
                else
                    wi[o] += *xi * zo[o];
        }
}

/* conv, and its adjoints: the same walk over (x, w, z), of which one is the sum of products of the
 * two others. */
static void RING(conv)(bl_op op, const bl_conv_sizes *s, void *x, void *w, void *z)
{
    int64_t p[BL_MAX_RANK] = {0};
    bl_shape places = window_places(s);
    int64_t count = bl_shape_count(places), in = s->inputs / s->groups;
    for (int64_t n = 0; n < count; n++, next_index(places, p)) {
        int64_t pixel = pixel_under(s, p);
        if (pixel < 0)
            continue;
        RING(conv_channels)
        (op, s, (WIDE *)x + pixel * s->inputs,
         (WIDE *)w + (p[3] * s->window[1] + p[4]) * in * s->outputs,
         (WIDE *)z + ((p[0] * s->result[0] + p[1]) * s->result[1] + p[2]) * s->outputs);
    }
}

/* Adds every window to the pixels it was taken from. */
static void RING(fold)(const bl_conv_sizes *s, const void *windows, void *image)
{
    int64_t place[BL_MAX_RANK] = {0};
    bl_shape places = window_places(s);
    const WIDE *from = windows;
    int64_t count = bl_shape_count(places);
    for (int64_t n = 0; n < count; n++, from += s->inputs, next_index(places, place)) {
        int64_t pixel = pixel_under(s, place);
        for (int64_t i = 0; i < s->inputs && pixel >= 0; i++)
            ((WIDE *)image)[pixel * s->inputs + i] += from[i];
    }
}

const bl_ring RING(ring) = {RING(add_rows),    RING(add_along), RING(reduce), RING(fill),
                            RING(running_sum), RING(dot),       RING(conv),   RING(fold)};
