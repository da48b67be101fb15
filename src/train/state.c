/* State: every array that lives from one step to the next, in one flat list of named slots. The
 * parameters are the first slots; running statistics, optimiser slots and the methods' own state
 * follow as the model and the hooks ask for them. Slots get memory and values when training
 * starts, after all graphs have been built. */
#define BL_KEEP_PLACE
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/training.h"

int bl_slot_find(const bl_training *t, const char *name)
{
    for (int i = 0; i < t->slots; i++)
        if (strcmp(t->slot[i].name, name) == 0)
            return i;
    return BL_NO_SLOT;
}

static bl_status fill(bl_training *t, bl_slot *slot)
{
    if (slot->value.data)
        return BL_OK;
    BL_TRY(bl_array_new(slot->type.dtype, slot->type.shape, &slot->value));
    if (slot->copies != BL_NO_SLOT) {
        const bl_array *from = &t->slot[slot->copies].value;
        memcpy(slot->value.data, from->data, bl_type_bytes(slot->type));
    } else if (slot->initial != 0) {
        for (int64_t i = 0, n = bl_type_count(slot->type); i < n; i++)
            bl_array_set(&slot->value, i, slot->initial);
    }
    return BL_OK;
}

int bl_slot_add(bl_training *t, const char *name, bl_type type, double initial, int copies)
{
    int found = bl_slot_find(t, name);
    if (found != BL_NO_SLOT)
        return found;
    char *kept = bl_arena_text(t->arena, name);
    if (!kept || !BL_GROW(t->slot, t->slots, t->slot_capacity))
        return BL_NO_SLOT;
    t->slot[t->slots] = (bl_slot){.name = kept, .type = type, .initial = initial, .copies = copies};
    if (t->started && fill(t, &t->slot[t->slots]) != BL_OK)
        return BL_NO_SLOT;
    return t->slots++;
}

/* --- declaring the model: one visit with callbacks that write down what it asks for ------------
 */
typedef struct bl_declaration {
    bl_training *t;
    bl_graph *graph;
    bl_status status;
    bool statistics; /* the second visit: statistics come after all parameters */
} bl_declaration;

static bl_status keep_parameter(bl_training *t, const bl_parameter *parameter)
{
    char *path = bl_arena_text(t->arena, parameter->path);
    char *name = bl_format("param/%s", parameter->path);
    bool twice = name && bl_slot_find(t, name) != BL_NO_SLOT;
    bool room = path && name && BL_GROW(t->parameter, t->parameters, t->parameter_capacity) &&
                bl_slot_add(t, name, parameter->type, 0, BL_NO_SLOT) != BL_NO_SLOT;
    bl_release(name);
    if (!room)
        return bl_no_memory(sizeof *parameter);
    if (twice)
        return bl_fail(BL_INVALID, "the model asks for the parameter %s twice", parameter->path);
    t->parameter[t->parameters] = *parameter;
    t->parameter[t->parameters++].path = path;
    return BL_OK;
}

static bl_tensor declare_parameter(void *context, const bl_parameter *parameter)
{
    bl_declaration *d = context;
    if (!d->statistics && d->status == BL_OK)
        d->status = keep_parameter(d->t, parameter);
    return bl_input(d->graph, parameter->path, parameter->type.dtype, parameter->type.shape);
}

static bl_tensor declare_site(void *context, const bl_site_info *site, bl_tensor value)
{
    (void)context, (void)site;
    return value;
}

static bl_tensor declare_statistic(void *context, const char *path, bl_type type, double initial)
{
    bl_declaration *d = context;
    char *name = bl_format("model/%s", path);
    if (d->statistics &&
        (!name || bl_slot_add(d->t, name, type, initial, BL_NO_SLOT) == BL_NO_SLOT))
        d->status = bl_no_memory(sizeof(bl_slot));
    bl_release(name);
    return bl_input(d->graph, path, type.dtype, type.shape);
}

static void declare_next(void *context, const char *path, bl_tensor next)
{
    (void)context, (void)path, (void)next;
}

static bl_status visit_model(bl_training *t, bool statistics)
{
    bl_graph *graph = bl_graph_new();
    if (!graph)
        return bl_no_memory(1);
    bl_declaration d = {.t = t, .graph = graph, .statistics = statistics};
    bl_model m = {.architecture = t->experiment->recipe.model,
                  .graph = graph,
                  .context = &d,
                  .parameter = declare_parameter,
                  .site = declare_site,
                  .statistic = declare_statistic,
                  .set_statistic = declare_next};
    bl_shape shape = t->data->train.inputs.type.shape;
    shape.dim[0] = 2;
    bl_model_forward(&m, bl_input(graph, "x", BL_F32, shape));
    bl_status status = d.status == BL_OK ? bl_graph_status(graph) : d.status;
    bl_graph_free(graph);
    return status;
}

/* --- the methods' own state ----------------------------------------------------------------------
 * "f32[N,C]": N training examples, C classes or L values, B batch, or a number. */
static bool read_size(const bl_training *t, const char *text, size_t length, int64_t *size)
{
    char symbol[24] = {0};
    if (length == 0 || length >= sizeof symbol)
        return false;
    memcpy(symbol, text, length);
    if (strcmp(symbol, "N") == 0)
        *size = t->data->train.count;
    else if (strcmp(symbol, "C") == 0 || strcmp(symbol, "L") == 0)
        *size = t->experiment->recipe.model.outputs;
    else if (strcmp(symbol, "B") == 0)
        *size = t->batch;
    else
        return bl_parse_int(symbol, size) && *size >= 0;
    return true;
}

static bool read_type(const bl_training *t, const char *text, bl_type *type)
{
    size_t dtype_length = strcspn(text, "[");
    const char *at = text + dtype_length;
    bl_dtype dtype = BL_DTYPES;
    for (int i = 0; i < BL_DTYPES; i++)
        if (strlen(bl_dtype_name((bl_dtype)i)) == dtype_length &&
            strncmp(bl_dtype_name((bl_dtype)i), text, dtype_length) == 0)
            dtype = (bl_dtype)i;
    if (dtype == BL_DTYPES || *at++ != '[')
        return false;
    *type = (bl_type){.dtype = dtype};
    if (strcmp(at, "]") == 0)
        return true;
    for (;; at++) {
        size_t length = strcspn(at, ",]");
        if (type->shape.rank == BL_MAX_RANK ||
            !read_size(t, at, length, &type->shape.dim[type->shape.rank++]))
            return false;
        at += length;
        if (*at != ',')
            return strcmp(at, "]") == 0;
    }
}

static bl_status declare_part(bl_training *t, const bl_arm_part *part)
{
    const bl_state_declaration *declared = part->hooks->state;
    for (int i = 0; i < (int)(sizeof part->hooks->state / sizeof *declared) && declared[i].name;
         i++) {
        bl_type type;
        if (!read_type(t, declared[i].type, &type))
            return bl_fail(BL_INVALID,
                           "%s: state %s has the type \"%s\"; expected one like "
                           "\"f32[N,C]\"",
                           part->name, declared[i].name, declared[i].type);
        char *name = bl_format("%s/%s", part->name, declared[i].name);
        int slot = name ? bl_slot_add(t, name, type, declared[i].initial, BL_NO_SLOT) : BL_NO_SLOT;
        bl_release(name);
        if (slot == BL_NO_SLOT)
            return bl_no_memory(sizeof(bl_slot));
    }
    return BL_OK;
}

static bl_status declare_arm(bl_training *t)
{
    for (int i = 0; i < t->arm->parts; i++) {
        for (int j = 0; j < i; j++)
            if (strcmp(t->arm->part[i].name, t->arm->part[j].name) == 0)
                return bl_fail(BL_INVALID, "%s is in the arm twice: its state has one name",
                               t->arm->part[i].name);
        BL_TRY(declare_part(t, &t->arm->part[i]));
    }
    return BL_OK;
}

/* --- starting -----------------------------------------------------------------------------------
 */
static double initial_deviation(const bl_parameter *p)
{
    double fan_out = (double)(p->type.shape.rank ? p->type.shape.dim[p->type.shape.rank - 1] : 1);
    double fan_in = (double)bl_type_count(p->type) / fan_out;
    switch (p->start) {
    case BL_INIT_HE:
        return sqrt(2 / fan_in);
    case BL_INIT_GLOROT:
        return sqrt(2 / (fan_in + fan_out));
    case BL_INIT_LECUN:
        return sqrt(1 / fan_in);
    default:
        return 0;
    }
}

/* The key depends on the path alone, so models that share a layer share its start. */
static void draw_parameter(bl_training *t, int i)
{
    const bl_parameter *p = &t->parameter[i];
    float *w = bl_f32(&t->slot[i].value);
    int64_t count = bl_type_count(p->type);
    double deviation = initial_deviation(p);
    bl_random r = bl_random_new(bl_key_derive_name(t->experiment->keys.init, p->path));
    for (int64_t k = 0; k < count; k++) {
        if (deviation > 0)
            w[k] = (float)(deviation * bl_random_gauss(&r));
        else if (p->classifier && p->role == BL_BIAS)
            w[k] = (float)t->experiment->recipe.model.output_bias;
        else
            w[k] = p->start == BL_INIT_ONE ? 1 : 0;
    }
}

double bl_squared_distance(const float *a, const float *b, int64_t count, double *norm)
{
    double distance = 0;
    for (int64_t i = 0; i < count; i++) {
        distance += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        *norm += (double)b[i] * b[i];
    }
    return distance;
}

/* --- host hooks: what they do to the parameters is measured --------------------------------------
 */
typedef bl_status bl_host_hook(bl_training *t, const void *options);

static bl_host_hook *host_hook(const bl_hooks *hooks, bool init)
{
    return init ? hooks->init : hooks->epoch;
}

static bl_status run_hooks(bl_training *t, bool init)
{
    for (int i = 0; i < t->arm->parts; i++) {
        bl_host_hook *hook = host_hook(t->arm->part[i].hooks, init);
        t->part = i;
        if (hook)
            BL_TRY(hook(t, t->arm->part[i].options));
    }
    return BL_OK;
}

static double moved_from(const bl_training *t, const bl_array *before)
{
    double distance = 0, norm = 0;
    for (int i = 0; i < t->parameters; i++)
        distance += bl_squared_distance(bl_f32(&t->slot[i].value), bl_f32(&before[i]),
                                        bl_type_count(t->slot[i].type), &norm);
    return sqrt(norm > 0 ? distance / norm : distance);
}

bl_status bl_run_host_hooks(bl_training *t, bool init)
{
    bool any = false;
    for (int i = 0; i < t->arm->parts; i++)
        any = any || host_hook(t->arm->part[i].hooks, init);
    if (!any)
        return BL_OK;
    size_t bytes = (size_t)t->parameters * sizeof(bl_array);
    bl_array *before = bl_alloc(bytes);
    bl_status status = before ? BL_OK : bl_no_memory(bytes);
    for (int i = 0; status == BL_OK && i < t->parameters; i++)
        status = bl_array_copy(&t->slot[i].value, &before[i]);
    if (status == BL_OK)
        status = run_hooks(t, init);
    if (status == BL_OK)
        t->tally.host_moved = fmax(t->tally.host_moved, moved_from(t, before));
    for (int i = 0; before && i < t->parameters; i++)
        bl_array_free(&before[i]);
    bl_release(before);
    return status;
}

bl_status bl_training_start(bl_training *t)
{
    for (int pass = 0; pass < 2; pass++) { /* copies of parameters come after the init hooks */
        for (int i = 0; i < t->slots; i++)
            if ((t->slot[i].copies == BL_NO_SLOT) == (pass == 0))
                BL_TRY(fill(t, &t->slot[i]));
        if (pass == 0) {
            for (int i = 0; i < t->parameters; i++)
                draw_parameter(t, i);
            BL_TRY(bl_run_host_hooks(t, true));
        }
    }
    t->started = true;
    return BL_OK;
}

static void prepare_lookup(bl_training *t)
{
    for (int c = 0; c < 4; c++)
        for (int v = 0; v < 256; v++)
            t->lookup[c][v] = ((double)v - t->data->mean[c]) * t->data->scale[c];
}

bl_status bl_training_new(const bl_experiment *experiment, bl_training **out)
{
    static const bl_arm no_arm;
    bl_training *t = bl_alloc(sizeof *t);
    *out = t;
    if (!t || !(t->arena = bl_arena_new()))
        return bl_no_memory(sizeof *t);
    t->experiment = experiment;
    t->data = experiment->data;
    t->arm = experiment->arm ? experiment->arm : &no_arm;
    int64_t count = t->data->train.count, batch = experiment->recipe.batch;
    t->batch = batch < count ? batch : count;
    t->batches = t->batch > 0 ? count / t->batch : 0;
    t->steps = t->batches * experiment->recipe.epochs;
    t->tally.validation = NAN;
    prepare_lookup(t);
    BL_TRY(visit_model(t, false));
    BL_TRY(visit_model(t, true));
    return declare_arm(t);
}

void bl_training_free(bl_training *t)
{
    if (!t)
        return;
    bl_call *calls[] = {&t->step, &t->audit, &t->evaluate, &t->plain, &t->renew};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        bl_call_free(calls[i]);
    bl_batch_free(&t->train_batch);
    bl_batch_free(&t->evaluation_batch);
    for (int i = 0; i < t->slots; i++)
        bl_array_free(&t->slot[i].value);
    for (int i = 0; i < t->renewed_slots; i++)
        bl_array_free(&t->renewed[i]);
    bl_array_free(&t->loss);
    for (int i = 0; i < BL_MEASURES; i++)
        bl_array_free(&t->measure[i]);
    bl_release(t->renewed);
    bl_release(t->slot);
    bl_release(t->parameter);
    bl_release(t->order);
    bl_release(t->curve);
    bl_arena_free(t->arena);
    bl_release(t);
}

/* --- what host hooks may call ------------------------------------------------------------------
 */
static bl_array *own_array(bl_training *t, const char *name, const char *path)
{
    char *full = path ? bl_format("%s/%s/%s", t->arm->part[t->part].name, name, path)
                      : bl_format("%s/%s", t->arm->part[t->part].name, name);
    int slot = full ? bl_slot_find(t, full) : BL_NO_SLOT;
    bl_release(full);
    return slot == BL_NO_SLOT ? NULL : &t->slot[slot].value;
}

bl_array *bl_training_state(bl_training *t, const char *name)
{
    return own_array(t, name, NULL);
}

bl_array *bl_training_parameter(bl_training *t, int i)
{
    return i >= 0 && i < t->parameters ? &t->slot[i].value : NULL;
}

bl_array *bl_training_parameter_state(bl_training *t, const char *name, int i)
{
    return i >= 0 && i < t->parameters ? own_array(t, name, t->parameter[i].path) : NULL;
}

int bl_training_parameters(const bl_training *t, const bl_parameter **parameter)
{
    *parameter = t->parameter;
    return t->parameters;
}

int64_t bl_training_epoch(const bl_training *t)
{
    return t->epoch;
}
int64_t bl_training_epochs(const bl_training *t)
{
    return t->experiment->recipe.epochs;
}
double bl_training_validation(const bl_training *t)
{
    return t->tally.validation;
}
void bl_training_stop(bl_training *t)
{
    t->tally.stop = 1;
}
