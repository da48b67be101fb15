/* A graph's view of the training: inputs for the batch and for the slots it reads, the next values
 * of the slots it sets, the model's callbacks, and everything that graph hooks may call. */
#define BL_KEEP_PLACE
#include <string.h>

#include "train/training.h"

static const char *const argument_name[BL_ARGS] = {"inputs",        "targets", "index",
                                                   "epoch",         "step",    "progress",
                                                   "learning_rate", "key",     "statistic_rate"};

/* --- slots ---------------------------------------------------------------------------------------
 */
static bool make_room(bl_builder *b)
{
    int slots = b->t->slots;
    if (slots <= b->slots)
        return true;
    int room = slots + 32;
    bl_tensor *now = bl_resize(b->now, (size_t)room * sizeof *now);
    b->now = now ? now : b->now;
    bl_tensor *next = now ? bl_resize(b->next, (size_t)room * sizeof *next) : NULL;
    b->next = next ? next : b->next;
    if (!now || !next)
        return false;
    for (int i = b->slots; i < room; i++)
        b->now[i] = b->next[i] = (bl_tensor){0};
    b->slots = room;
    return true;
}

bl_tensor bl_builder_now(bl_builder *b, int slot)
{
    if (slot == BL_NO_SLOT || !make_room(b))
        return bl_poison(b->step.graph, "memory is short for the training state");
    const bl_slot *s = &b->t->slot[slot];
    if (!b->now[slot].graph)
        b->now[slot] = bl_input(b->step.graph, s->name, s->type.dtype, s->type.shape);
    return b->now[slot];
}

void bl_builder_set(bl_builder *b, int slot, bl_tensor next)
{
    if (b->frozen)
        return;
    bl_tensor now = bl_builder_now(b, slot);
    if (bl_is_poison(now) || bl_is_poison(next))
        return;
    if (bl_is_number(next))
        next = bl_full_like(now, next.number);
    if (!bl_type_equal(bl_type_of(now), bl_type_of(next))) {
        char want[BL_TYPE_TEXT], got[BL_TYPE_TEXT];
        bl_poison(b->step.graph, "state %s is %s, but its next value is %s", b->t->slot[slot].name,
                  bl_type_text(bl_type_of(now), want), bl_type_text(bl_type_of(next), got));
        return;
    }
    b->next[slot] = next;
}

/* --- the model's callbacks -----------------------------------------------------------------------
 */
bl_tensor bl_builder_weight(bl_builder *b, int parameter, bl_tensor value)
{
    int part = b->part;
    BL_EACH_PART(b, i)
    {
        const bl_arm_part *p = &b->t->arm->part[i];
        if (!p->hooks->weight)
            continue;
        b->part = i;
        bl_tensor replaced = p->hooks->weight(&b->step, p->options, parameter, value);
        b->replaced += b->counting && replaced.id != value.id;
        value = replaced;
    }
    b->part = part;
    return value;
}

static bl_tensor parameter_value(void *context, const bl_parameter *parameter)
{
    bl_builder *b = context;
    bl_step *s = &b->step;
    int i = 0;
    while (i < s->parameters && strcmp(s->parameter[i].path, parameter->path) != 0)
        i++;
    if (i == s->parameters)
        return bl_poison(s->graph, "the model asks for %s only in some passes", parameter->path);
    if (!b->seen[i])
        s->value[i] = bl_builder_weight(b, i, s->raw[i]);
    b->seen[i] = true;
    return s->value[i];
}

static bl_tensor site_value(void *context, const bl_site_info *site, bl_tensor value)
{
    bl_builder *b = context;
    int part = b->part;
    BL_EACH_PART(b, i)
    {
        const bl_arm_part *p = &b->t->arm->part[i];
        if (!p->hooks->site)
            continue;
        b->part = i;
        bl_tensor replaced = p->hooks->site(&b->step, p->options, site, value);
        b->replaced += b->counting && replaced.id != value.id;
        value = replaced;
    }
    b->part = part;
    return value;
}

static int statistic_slot(bl_builder *b, const char *path)
{
    char *name = bl_format("model/%s", path);
    int slot = name ? bl_slot_find(b->t, name) : BL_NO_SLOT;
    bl_release(name);
    return slot;
}

static bl_tensor statistic_value(void *context, const char *path, bl_type type, double initial)
{
    (void)type, (void)initial;
    bl_builder *b = context;
    return bl_builder_now(b, statistic_slot(b, path));
}

static void statistic_next(void *context, const char *path, bl_tensor next)
{
    bl_builder *b = context;
    bl_builder_set(b, statistic_slot(b, path), next);
}

/* --- forward passes --------------------------------------------------------------------------- */
typedef struct bl_view { /* what a forward pass with other parameters must put back */
    bl_tensor *raw, *value;
    bool *seen;
    bool counting;
} bl_view;

static bool enter(bl_builder *b, const bl_tensor *raw, bl_view *saved)
{
    bl_step *s = &b->step;
    *saved = (bl_view){s->raw, s->value, b->seen, b->counting};
    size_t room = (size_t)s->parameters + 1, bytes = room * sizeof(bl_tensor);
    bl_tensor *own = bl_arena_alloc(b->t->arena, bytes);
    bl_tensor *value = bl_arena_alloc(b->t->arena, bytes);
    bool *seen = bl_arena_alloc(b->t->arena, room * sizeof *seen);
    if (!own || !value || !seen) {
        bl_poison(s->graph, "memory is short for another forward pass");
        return false;
    }
    memcpy(own, raw, (size_t)s->parameters * sizeof *own);
    s->raw = own, s->value = value, b->seen = seen, b->counting = false;
    b->frozen++;
    return true;
}

static void leave(bl_builder *b, const bl_view *saved)
{
    b->step.raw = saved->raw, b->step.value = saved->value, b->seen = saved->seen;
    b->counting = saved->counting;
    b->frozen--;
}

static bl_outputs forward_now(bl_builder *b, bl_tensor inputs)
{
    bl_tensor logits = bl_model_forward(&b->model, inputs);
    return (bl_outputs){.logits = logits, .features = b->model.features};
}

/* The pass whose values the step keeps; a parameter the model did not ask for keeps its raw value.
 */
bl_outputs bl_builder_forward(bl_builder *b)
{
    memset(b->seen, 0, (size_t)b->step.parameters * sizeof *b->seen);
    return forward_now(b, b->step.inputs);
}

bl_outputs bl_forward(bl_step *s, bl_tensor inputs, const bl_tensor *raw)
{
    bl_builder *b = s->builder;
    bl_view saved;
    bl_tensor poison = {.graph = s->graph, .id = -1};
    if (!enter(b, raw, &saved))
        return (bl_outputs){poison, poison};
    bl_outputs outputs = forward_now(b, inputs);
    leave(b, &saved);
    return outputs;
}

static void call_loss_hooks_again(bl_builder *b)
{
    int part = b->part;
    b->in_loss = true;
    BL_EACH_PART(b, i)
    {
        b->part = i;
        if (b->t->arm->part[i].hooks->loss)
            b->t->arm->part[i].hooks->loss(&b->step, b->t->arm->part[i].options);
    }
    b->in_loss = false;
    b->part = part;
}

bl_tensor bl_loss_at(bl_step *s, const bl_tensor *raw)
{
    bl_builder *b = s->builder;
    if (b->in_loss)
        return bl_poison(s->graph, "bl_loss_at includes the loss hooks: call it in later hooks");
    bl_view saved;
    if (!enter(b, raw, &saved))
        return (bl_tensor){.graph = s->graph, .id = -1};
    bl_tensor logits = s->logits, features = s->features, loss = s->loss;
    bl_outputs outputs = forward_now(b, s->inputs);
    s->logits = outputs.logits, s->features = outputs.features;
    s->loss = bl_task_loss(s, s->logits, s->targets, s->target_form);
    call_loss_hooks_again(b);
    bl_tensor result = s->loss;
    s->logits = logits, s->features = features, s->loss = loss;
    leave(b, &saved);
    return result;
}

/* --- opening ---------------------------------------------------------------------------------- */
static void open_arguments(bl_builder *b, int64_t batch)
{
    bl_type type[BL_ARGS];
    bl_argument_types(b->t, batch, type);
    for (int i = 0; i < BL_ARGS; i++)
        b->argument[i] = bl_input(b->step.graph, argument_name[i], type[i].dtype, type[i].shape);
}

static void open_step(bl_builder *b, int64_t batch)
{
    bl_training *t = b->t;
    bl_step *s = &b->step;
    s->inputs = b->argument[BL_ARG_INPUTS];
    s->targets = b->argument[BL_ARG_TARGETS];
    s->target_form = t->data->classes > 0 ? BL_LABELS : BL_NUMBERS;
    if (t->data->classes > 0)
        s->labels = s->targets;
    if (s->training)
        s->index = b->argument[BL_ARG_INDEX];
    s->epoch = b->argument[BL_ARG_EPOCH];
    s->step = b->argument[BL_ARG_STEP];
    s->progress = b->argument[BL_ARG_PROGRESS];
    s->learning_rate = b->argument[BL_ARG_LEARNING_RATE];
    s->batch = batch;
    s->examples = t->data->train.count;
    s->classes = t->experiment->recipe.model.outputs;
    s->epochs = t->experiment->recipe.epochs;
    s->steps = t->steps;
    s->target_scale = t->data->classes > 0 ? 1 : t->data->target_scale;
    s->loss_name = t->experiment->recipe.loss;
    s->parameters = t->parameters;
    s->parameter = t->parameter;
    s->builder = b;
}

static void open_model(bl_builder *b)
{
    b->model = (bl_model){.architecture = b->t->experiment->recipe.model,
                          .graph = b->step.graph,
                          .training = b->step.training,
                          .rate = b->argument[BL_ARG_STATISTIC_RATE],
                          .context = b,
                          .parameter = parameter_value,
                          .site = site_value,
                          .statistic = statistic_value,
                          .set_statistic = statistic_next};
}

bl_status bl_builder_open(bl_training *t, bool training, int64_t batch, bl_builder *b)
{
    *b = (bl_builder){.t = t, .part = -1, .frozen = training ? 0 : 1};
    bl_step *s = &b->step;
    s->graph = bl_graph_new();
    s->training = training;
    size_t room = (size_t)t->parameters + 1, bytes = room * sizeof(bl_tensor);
    s->raw = bl_arena_alloc(t->arena, bytes);
    s->value = bl_arena_alloc(t->arena, bytes);
    s->gradient = bl_arena_alloc(t->arena, bytes);
    s->updated = bl_arena_alloc(t->arena, bytes);
    b->optimised = bl_arena_alloc(t->arena, bytes);
    b->seen = bl_arena_alloc(t->arena, room * sizeof *b->seen);
    if (!s->graph || !s->raw || !s->value || !s->gradient || !s->updated || !b->optimised ||
        !b->seen)
        return bl_no_memory(bytes);
    open_arguments(b, batch);
    open_step(b, batch);
    open_model(b);
    for (int i = 0; i < t->parameters; i++)
        s->raw[i] = s->value[i] = s->updated[i] = bl_builder_now(b, i);
    return bl_graph_status(s->graph);
}

void bl_builder_close(bl_builder *b)
{
    bl_graph_free(b->step.graph);
    bl_release(b->now);
    bl_release(b->next);
}

/* --- what graph hooks may call ---------------------------------------------------------------- */
static const char *part_name(const bl_builder *b)
{
    return b->part >= 0 ? b->t->arm->part[b->part].name : "step";
}

static int own_slot(bl_step *s, const char *name)
{
    bl_builder *b = s->builder;
    char *full = bl_format("%s/%s", part_name(b), name);
    int slot = full ? bl_slot_find(b->t, full) : BL_NO_SLOT;
    if (full && slot == BL_NO_SLOT)
        bl_poison(s->graph, "%s has no state \"%s\": declare it in bl_hooks.state", part_name(b),
                  name);
    bl_release(full);
    return slot;
}

bl_tensor bl_state(bl_step *s, const char *name)
{
    return bl_builder_now(s->builder, own_slot(s, name));
}

void bl_set_state(bl_step *s, const char *name, bl_tensor next)
{
    bl_builder_set(s->builder, own_slot(s, name), next);
}

static int beside_slot(bl_step *s, const char *name, int i, bl_start start)
{
    bl_builder *b = s->builder;
    if (i < 0 || i >= s->parameters) {
        bl_poison(s->graph, "%s: there is no parameter %d among %d", part_name(b), i,
                  s->parameters);
        return BL_NO_SLOT;
    }
    char *full = bl_format("%s/%s/%s", part_name(b), name, s->parameter[i].path);
    int slot = full ? bl_slot_add(b->t, full, s->parameter[i].type, 0,
                                  start == BL_START_AT_PARAMETER ? i : BL_NO_SLOT)
                    : BL_NO_SLOT;
    bl_release(full);
    return slot;
}

bl_tensor bl_parameter_state(bl_step *s, const char *name, int i, bl_start start)
{
    return bl_builder_now(s->builder, beside_slot(s, name, i, start));
}

void bl_set_parameter_state(bl_step *s, const char *name, int i, bl_tensor next)
{
    bl_builder_set(s->builder, beside_slot(s, name, i, BL_START_ZERO), next);
}

bl_tensor bl_step_key(bl_step *s, const char *name)
{
    bl_builder *b = s->builder;
    const char *part = part_name(b);
    uint64_t hash = bl_hash(name, strlen(name), bl_hash(part, strlen(part) + 1, 0));
    return bl_key_fold(b->argument[BL_ARG_KEY], (uint32_t)(hash ^ hash >> 32));
}

bl_tensor bl_task_loss(bl_step *s, bl_tensor logits, bl_tensor targets, bl_target_form form)
{
    if (form == BL_LABELS)
        return bl_cross_entropy(logits, targets);
    if (form == BL_DISTRIBUTIONS)
        return bl_soft_cross_entropy(logits, targets);
    bl_tensor difference = bl_sub(logits, targets);
    return bl_mean(strcmp(s->loss_name, "absolute") == 0 ? bl_abs(difference)
                                                         : bl_square(difference));
}

bl_tensor bl_target_distributions(bl_step *s)
{
    if (s->target_form == BL_NUMBERS)
        return bl_poison(s->graph, "targets of a regression have no distribution over classes");
    return s->target_form == BL_DISTRIBUTIONS ? s->targets
                                              : bl_onehot(s->targets, s->classes, BL_F32);
}

void bl_measure(bl_step *s, const char *name, bl_tensor value)
{
    bl_builder *b = s->builder;
    if (b->frozen || bl_is_poison(value))
        return;
    if (b->measures == BL_MEASURES) {
        bl_poison(s->graph, "more than %d measures in one arm", BL_MEASURES);
        return;
    }
    bl_tensor number = bl_is_number(value) ? bl_full(s->graph, BL_F32, BL_SCALAR, value.number)
                                           : bl_cast(bl_reshape(value, BL_SCALAR), BL_F32);
    b->measure_name[b->measures] = bl_arena_text(b->t->arena, name);
    b->measure[b->measures++] = number;
}

/* The next values, parameters first, with the slots they go to. */
bl_status bl_builder_collect(bl_builder *b, bl_tensor *outputs, int *out_slot, int *count)
{
    for (int i = 0; i < b->t->parameters; i++)
        bl_builder_set(b, i, b->step.updated[i]);
    BL_TRY(bl_graph_status(b->step.graph));
    for (int i = 0; i < b->slots && i < b->t->slots; i++) {
        if (!b->next[i].graph || b->next[i].id == b->now[i].id)
            continue;
        outputs[*count] = b->next[i];
        out_slot[(*count)++] = i;
    }
    return BL_OK;
}
