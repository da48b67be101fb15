/* One training run from plain data: split, spoil, prepare, train.
 *
 * Replicate r draws each source of variation from its own key, derive(derive(seed, r), source), so
 * that arms of one replicate share everything but themselves. The prepared data of the last
 * replicate are kept: its other arms use them too. */
#include "study/job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "methods/method.h"
#include "study/setting.h"
#include "tasks/task.h"

/* The parts of one replicate, ready for training. */
typedef struct prepared {
    int replicate;   /* -1: none; of purposes other than a verdict, from first_replicate on */
    bool validation; /* a part is held out */
    bool raw;        /* images as u8, for arms that change them */
    bl_preparation *preparation;
    bl_training_data data;
    int32_t *true_labels; /* of the training part, as are: */
    int32_t *rows;        /* of the data set */
} prepared;

struct bl_job_data {
    const bl_plan *plan;
    bl_dataset set;
    const bl_task *task;
    bl_recipe recipe;
    bl_noise noise;
    int64_t train_count, test_count;
    char *summary;
    prepared *last; /* the cache: one job runs at a time */
};

/* Each purpose has replicates of its own, which no other uses again; from FIRST_TRIAL on the test
 * part is not read. */
enum { FIRST_PILOT = 1 << 29, FIRST_TRIAL = 1 << 30, FIRST_SCREENING = FIRST_TRIAL + (1 << 28) };
static const int first_replicate[BL_PURPOSES] = {[BL_FOR_TUNING] = FIRST_TRIAL,
                                                 [BL_FOR_SCREENING] = FIRST_SCREENING,
                                                 [BL_FOR_PILOT] = FIRST_PILOT};

enum {
    SOURCE_SPLIT,
    SOURCE_SUBSET,
    SOURCE_IMBALANCE,
    SOURCE_NOISE,
    SOURCE_INIT,
    SOURCE_ORDER,
    SOURCE_AUGMENTATION,
    SOURCE_NULL,
    SOURCE_TRIAL
};

static bl_key source_key(const bl_plan *plan, int replicate, uint32_t source)
{
    return bl_key_derive(bl_key_derive(bl_key_from_seed(plan->study_seed), (uint32_t)replicate),
                         source);
}

/* --- opening ---------------------------------------------------------------------------------- */
static bl_status open_set(const bl_plan *plan, bl_dataset *set)
{
    bl_data_options options = {.target = plan->target,
                               .columns = plan->columns,
                               .labels = plan->labels,
                               .test = plan->test,
                               .keep_columns = plan->keep_columns};
    if (plan->task && plan->target)
        options.target_kind = !strcmp(plan->task, "regression")       ? BL_VALUES
                              : !strcmp(plan->task, "classification") ? BL_CLASSES
                                                                      : BL_INFER_TARGET;
    return bl_dataset_open(plan->data, &options, set);
}

static bl_status choose_name(const char *what, const char *wanted, char *out, size_t room,
                             const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(wanted, names[i])) {
            snprintf(out, room, "%s", wanted);
            return BL_OK;
        }
    const char *near = bl_nearest(wanted, names, count);
    bl_text known = {0};
    for (int i = 0; i < count; i++)
        bl_text_add(&known, "%s%s", i ? ", " : "", names[i]);
    bl_status status = bl_fail(BL_INVALID, "there is no %s \"%s\"%s%s%s; there are %s", what,
                               wanted, near ? ": did you mean " : "", near ? near : "",
                               near ? "?" : "", known.at ? known.at : "others");
    bl_text_free(&known);
    return status;
}

static bl_status choose_model(const bl_job_data *j, bl_recipe *r)
{
    const bl_plan *plan = j->plan;
    const char *names[32];
    int count = 0;
    for (; count < bl_model_count() && count < 32; count++)
        names[count] = bl_model_name(count);
    char chosen[32];
    BL_TRY(choose_name("model", plan->model, chosen, sizeof chosen, names, count));
    if (bl_model_needs_images(chosen) && j->set.kind != BL_IMAGES)
        return bl_fail(BL_INVALID, "the model %s is for images, but %s is a table: try mlp", chosen,
                       j->set.name);
    if (strcmp(r->model.name, plan->model) != 0) /* its own default size */
        r->model.width = !strcmp(plan->model, "mlp") ? 128 : 16;
    r->model.depth = r->model.depth > 1 ? r->model.depth : 2;
    r->model.name = plan->model;
    return BL_OK;
}

/* The task's recipe with the plan's wishes. */
static bl_status settle_recipe(bl_job_data *j)
{
    static const char *const optimizers[] = {"sgd", "adam", "adamw"};
    static const char *const schedules[] = {"constant", "step", "cosine", "one_cycle"};
    static const char *const losses[] = {"cross_entropy", "squared", "absolute"};
    const bl_plan *plan = j->plan;
    bl_recipe *r = &j->recipe;
    *r = j->task->recipe(&j->set, j->train_count);
    if (plan->model)
        BL_TRY(choose_model(j, r));
    if (plan->optimizer) {
        bool steps = !strcmp(r->optimizer, "sgd");
        BL_TRY(choose_name("optimizer", plan->optimizer, r->optimizer, sizeof r->optimizer,
                           optimizers, 3));
        if (steps != !strcmp(r->optimizer, "sgd")) /* the task's rate is for the other kind */
            r->learning_rate = steps ? 1e-3 : 0.05;
    }
    if (plan->schedule)
        BL_TRY(
            choose_name("schedule", plan->schedule, r->schedule, sizeof r->schedule, schedules, 4));
    if (plan->loss)
        BL_TRY(choose_name("loss", plan->loss, r->loss, sizeof r->loss, losses, 3));
    if (plan->loss && !strcmp(plan->loss, "cross_entropy") != (j->task == &bl_task_classification))
        return bl_fail(
            BL_INVALID, "loss %s does not fit %s, which needs %s", plan->loss, j->task->name,
            j->task == &bl_task_classification ? "cross_entropy" : "squared or absolute");
    r->learning_rate = plan->learning_rate >= 0 ? plan->learning_rate : r->learning_rate;
    r->weight_decay = plan->weight_decay >= 0 ? plan->weight_decay : r->weight_decay;
    r->momentum = plan->momentum >= 0 ? plan->momentum : r->momentum;
    r->epochs = plan->epochs > 0 ? plan->epochs : r->epochs;
    r->batch = plan->batch > 0 ? plan->batch : r->batch;
    r->model.width = plan->width > 0 ? plan->width : r->model.width;
    r->model.depth = plan->depth > 0 ? plan->depth : r->model.depth;
    return BL_OK;
}

static void free_prepared(prepared *p)
{
    bl_part *parts[] = {&p->data.train, &p->data.validation, &p->data.test};
    for (int i = 0; i < 3; i++) {
        bl_array_free(&parts[i]->inputs);
        bl_array_free(&parts[i]->targets);
    }
    bl_preparation_free(p->preparation);
    bl_release(p->true_labels);
    bl_release(p->rows);
    *p = (prepared){.replicate = -1};
}

/* --- the parts of a replicate ----------------------------------------------------------------- */
static bl_status split(const bl_job_data *j, int replicate, bl_split *s)
{
    double test = j->set.test_count ? 0 : j->plan->test_fraction > 0 ? j->plan->test_fraction : 0.2;
    bl_split_options options = {.test = test, .train = j->plan->train_count};
    if (j->plan->fixed_split)
        replicate = 0;
    BL_TRY(bl_split_new(&j->set, &options, source_key(j->plan, replicate, SOURCE_SPLIT), s));
    if (!(j->plan->imbalance > 1))
        return BL_OK;
    return bl_imbalance(&j->set, s->train, s->train_count, j->plan->imbalance,
                        source_key(j->plan, replicate, SOURCE_IMBALANCE), s->train,
                        &s->train_count);
}

static bl_status part_inputs(const bl_job_data *j, const prepared *p, const int32_t *rows,
                             int64_t count, bl_array *out)
{
    bl_shape one = bl_preparation_shape(p->preparation),
             shape = {.rank = one.rank + 1, .dim = {count}};
    memcpy(shape.dim + 1, one.dim, (size_t)one.rank * sizeof *one.dim);
    BL_TRY(bl_array_new(p->raw ? BL_U8 : BL_F32, shape, out));
    if (!p->raw)
        return bl_preparation_inputs(p->preparation, &j->set, rows, count, bl_f32(out));
    size_t bytes = (size_t)bl_shape_count(one);
    for (int64_t i = 0; i < count; i++)
        memcpy(bl_u8(out) + (size_t)i * bytes, bl_u8(&j->set.inputs) + (size_t)rows[i] * bytes,
               bytes);
    return BL_OK;
}

static bl_status part_of(const bl_job_data *j, const prepared *p, const int32_t *rows,
                         int64_t count, bl_part *part)
{
    part->count = count;
    BL_TRY(part_inputs(j, p, rows, count, &part->inputs));
    bool classes = j->set.target_kind == BL_CLASSES;
    BL_TRY(bl_array_new(classes ? BL_I32 : BL_F32, classes ? BL_SHAPE(count) : BL_SHAPE(count, 1),
                        &part->targets));
    return bl_preparation_targets(p->preparation, &j->set, rows, count, part->targets.data);
}

static bl_status spoil(const bl_job_data *j, int replicate, prepared *p)
{
    if (j->noise.kind == BL_NOISE_NONE)
        return BL_OK;
    bl_part *train = &p->data.train;
    size_t bytes = (size_t)train->count * sizeof(int32_t);
    p->true_labels = bl_alloc(bytes);
    if (!p->true_labels)
        return bl_no_memory(bytes);
    memcpy(p->true_labels, bl_i32(&train->targets), bytes);
    p->data.true_labels = p->true_labels;
    bl_key key = source_key(j->plan, replicate, SOURCE_NOISE);
    return bl_noise_apply(&j->noise, &j->set, bl_i32(&train->targets), train->count, key, NULL);
}

/* Copies the rows whose mark is `mark`, in order. */
static bl_status marked_rows(const bl_array *from, const uint8_t *marks, uint8_t mark,
                             int64_t count, bl_array *out)
{
    bl_shape shape = from->type.shape;
    int64_t rows = shape.dim[0];
    size_t bytes = bl_type_bytes(from->type) / (size_t)rows;
    shape.dim[0] = count;
    BL_TRY(bl_array_new(from->type.dtype, shape, out));
    char *to = out->data;
    for (int64_t i = 0; i < rows; i++)
        if (marks[i] == mark) {
            memcpy(to, (const char *)from->data + (size_t)i * bytes, bytes);
            to += bytes;
        }
    return BL_OK;
}

static bl_status divide(prepared *p, const uint8_t *marks, int64_t held, bl_part *validation)
{
    bl_part all = p->data.train, *train = &p->data.train;
    *train = (bl_part){.count = all.count - held};
    *validation = (bl_part){.count = held};
    bl_status status = marked_rows(&all.inputs, marks, 0, train->count, &train->inputs);
    if (status == BL_OK)
        status = marked_rows(&all.targets, marks, 0, train->count, &train->targets);
    if (status == BL_OK)
        status = marked_rows(&all.inputs, marks, 1, held, &validation->inputs);
    if (status == BL_OK)
        status = marked_rows(&all.targets, marks, 1, held, &validation->targets);
    for (int64_t i = 0, k = 0; p->true_labels && i < all.count; i++)
        if (!marks[i])
            p->true_labels[k++] = p->true_labels[i];
    bl_array_free(&all.inputs);
    bl_array_free(&all.targets);
    return status;
}

/* Moves a stratified share of the training part to `out`, its wrong labels included: nobody has
 * clean ones there. Everything before (rows, labels, preparation) is that of the arms that hold
 * nothing out. The rows of the split that stay are kept in it. */
static bl_status hold_out(const bl_job_data *j, int replicate, uint32_t source, int64_t part,
                          bl_split *s, prepared *p, bl_part *out)
{
    int64_t count = s->train_count, held = count >= 2 * part ? count / part : 1;
    if (count < 2)
        return bl_fail(BL_INVALID, "%s: of %lld training examples none can be held out",
                       j->set.name, (long long)count);
    int32_t *rows = bl_alloc((size_t)held * sizeof *rows);
    uint8_t *marks = bl_alloc((size_t)count);
    bl_status status = rows && marks ? BL_OK : bl_no_memory((size_t)count);
    if (status == BL_OK)
        status =
            bl_subset(&j->set, s->train, count, held, source_key(j->plan, replicate, source), rows);
    if (status == BL_OK) {
        for (int64_t i = 0, k = 0; i < count && k < held; i++)
            if (s->train[i] == rows[k])
                marks[i] = 1, k++;
        status = divide(p, marks, held, out);
    }
    s->train_count = 0;
    for (int64_t i = 0; status == BL_OK && i < count; i++)
        if (!marks[i])
            s->train[s->train_count++] = s->train[i];
    bl_release(rows);
    bl_release(marks);
    return status;
}

/* How pixels become numbers, read off a black and a white image. */
static bl_status pixel_scale(prepared *p)
{
    bl_shape one = bl_preparation_shape(p->preparation);
    int64_t pixels = bl_shape_count(one), channels = one.dim[2];
    uint8_t *image = bl_alloc((size_t)(2 * pixels));
    float *number = bl_alloc((size_t)(2 * pixels) * sizeof *number);
    bl_status status = image && number ? BL_OK : bl_no_memory((size_t)pixels);
    if (status == BL_OK) {
        memset(image + pixels, 255, (size_t)pixels);
        status = bl_preparation_pixels(p->preparation, image, 2, number);
    }
    for (int64_t c = 0; status == BL_OK && c < channels && c < 4; c++) {
        p->data.scale[c] = ((double)number[pixels + c] - (double)number[c]) / 255;
        p->data.mean[c] = p->data.scale[c] != 0 ? -(double)number[c] / p->data.scale[c] : 0;
    }
    bl_release(image);
    bl_release(number);
    return status;
}

static bl_status prepare(const bl_job_data *j, int replicate, bool validation, bool raw,
                         prepared *p)
{
    *p = (prepared){.replicate = replicate, .validation = validation, .raw = raw};
    bl_split s = {0};
    bl_status status = split(j, replicate, &s);
    if (status == BL_OK)
        status = bl_preparation_fit(&j->set, s.train, s.train_count, &p->preparation);
    if (status == BL_OK)
        status = part_of(j, p, s.train, s.train_count, &p->data.train);
    bool trial = replicate >= FIRST_TRIAL; /* the test part is not even read */
    if (status == BL_OK && !trial)
        status = part_of(j, p, s.test, s.test_count, &p->data.test);
    if (status == BL_OK)
        status = spoil(j, replicate, p);
    if (status == BL_OK && trial)
        status = hold_out(j, replicate, SOURCE_TRIAL, 5, &s, p, &p->data.test);
    if (status == BL_OK && validation)
        status = hold_out(j, replicate, SOURCE_SUBSET, 10, &s, p, &p->data.validation);
    if (status == BL_OK && raw)
        status = pixel_scale(p);
    p->data.classes = j->set.target_kind == BL_CLASSES ? j->set.classes : 0;
    if (status == BL_OK)
        p->data.target_scale = p->data.classes ? 1 : bl_preparation_unit(p->preparation);
    p->rows = s.train;
    s.train = NULL;
    bl_split_free(&s);
    if (status != BL_OK)
        free_prepared(p);
    return status;
}

static bl_status prepared_for(const bl_job_data *j, int replicate, const bl_arm *arm,
                              const prepared **out)
{
    bool validation = (bl_arm_traits(arm) & BL_VALIDATION) != 0, raw = false;
    for (int i = 0; i < arm->parts; i++)
        raw = raw || arm->part[i].hooks->load;
    prepared *p = j->last;
    if (p->replicate != replicate || p->validation != validation || p->raw != raw) {
        free_prepared(p);
        BL_TRY(prepare(j, replicate, validation, raw, p));
    }
    *out = p;
    return BL_OK;
}

/* --- opening, continued ----------------------------------------------------------------------- */
static char *summary_of(const bl_job_data *j)
{
    char *set = bl_dataset_summary(&j->set), size[48] = "";
    const bl_recipe *r = &j->recipe;
    if (strcmp(r->model.name, "mlp") == 0)
        snprintf(size, sizeof size, " %lld x %lld", (long long)r->model.depth,
                 (long long)r->model.width);
    char *text =
        set ? bl_format("%s: %s\n%s%s, %s%s, %s rate %g, decay %g, batch %lld, %lld epoch%s; %lld "
                        "train, %lld test%s",
                        j->set.name, set, j->set.notes, j->task->name, r->model.name, size,
                        r->optimizer, r->learning_rate, r->weight_decay, (long long)r->batch,
                        (long long)r->epochs, r->epochs == 1 ? "" : "s", (long long)j->train_count,
                        (long long)j->test_count, bl_job_resplits(j) ? " in each split" : "")
            : NULL;
    bl_free_text(set);
    return text;
}

/* Whether the target leaves something to learn: neither all alike, nor each a class of its own. */
static bl_status check_target(const bl_dataset *d)
{
    bool classes = d->target_kind == BL_CLASSES;
    if (classes && d->classes < 2)
        return bl_fail(BL_INVALID,
                       "%s: every example is of the class \"%s\"; at least two are needed", d->name,
                       d->classes ? d->class_name[0] : "");
    if (classes && d->classes == d->count)
        return bl_fail(
            BL_INVALID,
            "%s: each of the %lld examples is of a class of its own (\"%s\", ..), so that "
            "none can be learned",
            d->name, (long long)d->count, d->class_name[0]);
    if (d->target_kind != BL_VALUES)
        return BL_OK;
    const double *value = bl_f64(&d->target);
    for (int64_t i = 1; i < d->count; i++)
        if (value[i] != value[0])
            return BL_OK;
    return bl_fail(BL_INVALID, "%s: the target is %g in every example; there is nothing to learn",
                   d->name, value[0]);
}

static bl_status settle(bl_job_data *j)
{
    const bl_plan *plan = j->plan;
    BL_TRY(bl_task_find(plan->task, &j->set, &j->task));
    BL_TRY(check_target(&j->set));
    if (plan->label_noise) {
        BL_TRY(bl_noise_parse(plan->label_noise, &j->noise));
        if (j->task != &bl_task_classification)
            return bl_fail(BL_INVALID, "label noise %s: the target holds numbers, not classes",
                           plan->label_noise);
        int32_t label = 0; /* what is wrong with the pairs is said now, not in every run */
        BL_TRY(bl_noise_apply(&j->noise, &j->set, &label, 1, bl_key_from_seed(0), NULL));
    }
    if (plan->imbalance > 1 && j->task != &bl_task_classification)
        return bl_fail(BL_INVALID, "imbalance %g: the target holds numbers, not classes",
                       plan->imbalance);
    bl_split s = {0};
    BL_TRY(split(j, 0, &s));
    j->train_count = s.train_count;
    j->test_count = s.test_count;
    bl_split_free(&s);
    BL_TRY(settle_recipe(j));
    j->summary = summary_of(j);
    return j->summary ? BL_OK : bl_no_memory(0);
}

bl_status bl_job_data_open(const bl_plan *plan, bl_job_data **out)
{
    *out = NULL;
    bl_job_data *j = bl_alloc(sizeof *j);
    if (!j || !(j->last = bl_alloc(sizeof *j->last))) {
        bl_release(j);
        return bl_no_memory(sizeof *j);
    }
    j->plan = plan;
    j->last->replicate = -1;
    bl_status status = open_set(plan, &j->set);
    if (status == BL_OK)
        status = settle(j);
    if (status != BL_OK) {
        bl_job_data_close(j);
        return status;
    }
    *out = j;
    return BL_OK;
}

void bl_job_data_close(bl_job_data *j)
{
    if (!j)
        return;
    free_prepared(j->last);
    bl_release(j->last);
    bl_release(j->summary);
    bl_dataset_free(&j->set);
    bl_release(j);
}

const bl_recipe *bl_job_recipe(const bl_job_data *j)
{
    return &j->recipe;
}

const char *bl_job_summary(const bl_job_data *j)
{
    return j->summary;
}

const char *bl_job_primary_metric(const bl_job_data *j, bool *higher_is_better)
{
    *higher_is_better = j->task->higher_is_better;
    return j->task->metric;
}

uint64_t bl_job_data_hash(const bl_job_data *j)
{
    return j->set.hash;
}

const char *bl_job_class(const bl_job_data *j, int32_t label)
{
    bool known = j->set.target_kind == BL_CLASSES && label >= 0 && label < j->set.classes;
    return known ? j->set.class_name[label] : NULL;
}

const char *bl_job_example(const bl_job_data *j, int64_t row)
{
    return j->set.example && row >= 0 && row < j->set.count ? j->set.example[row] : NULL;
}

bool bl_job_resplits(const bl_job_data *j)
{
    return j->set.test_count == 0 && !j->plan->fixed_split;
}

void bl_job_counts(const bl_job_data *j, int64_t *train, int64_t *test)
{
    *train = j->train_count;
    *test = j->test_count;
}

int64_t bl_job_pool(const bl_job_data *j)
{
    return j->set.count;
}

double bl_job_overlap(const bl_job_data *j)
{
    return bl_job_resplits(j) ? (double)j->test_count / (double)(j->set.count - j->test_count) : 0;
}

/* --- running ---------------------------------------------------------------------------------- */
static bl_status fits(const bl_job_data *j, const bl_arm *arm)
{
    unsigned traits = bl_arm_traits(arm);
    bool images = j->set.kind == BL_IMAGES, classes = j->task == &bl_task_classification;
    if ((traits & BL_CLASSIFICATION) && !classes)
        return bl_fail(BL_INVALID, "the arm %s is for classification, but this is regression",
                       arm->text);
    if ((traits & BL_REGRESSION) && classes)
        return bl_fail(BL_INVALID, "the arm %s is for regression, but this is classification",
                       arm->text);
    if ((traits & BL_IMAGE_INPUTS) && !images)
        return bl_fail(BL_INVALID, "the arm %s is for images, but %s is a table", arm->text,
                       j->set.name);
    if ((traits & BL_BRANCHES) && strncmp(j->recipe.model.name, "resnet", 6) != 0)
        return bl_fail(
            BL_INVALID,
            "the arm %s needs a model with residual branches (--model resnet20), but %s has none",
            arm->text, j->recipe.model.name);
    return BL_OK;
}

bl_status bl_job_check_arm(const bl_job_data *j, const char *text)
{
    bl_arm arm = {0};
    BL_TRY(bl_arm_parse(text, &arm));
    bl_status status = fits(j, &arm);
    bl_arm_free(&arm);
    return status;
}

static bl_run_keys run_keys(const bl_plan *plan, int replicate, bool null)
{
    bl_run_keys keys = {.init = source_key(plan, replicate, SOURCE_INIT),
                        .order = source_key(plan, replicate, SOURCE_ORDER),
                        .augmentation = source_key(plan, replicate, SOURCE_AUGMENTATION)};
    if (null) {
        keys.init = bl_key_derive(keys.init, SOURCE_NULL);
        keys.order = bl_key_derive(keys.order, SOURCE_NULL);
        keys.augmentation = bl_key_derive(keys.augmentation, SOURCE_NULL);
    }
    return keys;
}

static bl_status run(const bl_job *job, const bl_job_data *j, const bl_setting *setting,
                     const bl_progress *progress, bl_run_result *result)
{
    const prepared *p;
    const bl_arm *arm = &setting->arm;
    int replicate = first_replicate[setting->purpose] + job->replicate;
    BL_TRY(fits(j, arm));
    BL_TRY(prepared_for(j, replicate, arm, &p));
    bl_experiment experiment = {.recipe = j->recipe,
                                .data = &p->data,
                                .arm = arm,
                                .keys = run_keys(job->plan, replicate, arm->null),
                                .threads = 1,
                                .checkpoint = job->checkpoint,
                                .checkpoint_every = (j->recipe.epochs + 9) / 10,
                                .curve_points = setting->purpose == BL_FOR_VERDICT ? 20 : 0,
                                .details = setting->purpose == BL_FOR_VERDICT};
    if (!isnan(setting->learning_rate))
        experiment.recipe.learning_rate = setting->learning_rate;
    if (!isnan(setting->weight_decay))
        experiment.recipe.weight_decay = setting->weight_decay;
    if (!isnan(setting->epochs))
        experiment.recipe.epochs = (int64_t)setting->epochs;
    BL_TRY(bl_train(&experiment, progress, result));
    for (int i = 0; i < result->suspects; i++)
        result->suspect[i].example = p->rows[result->suspect[i].example];
    return BL_OK;
}

bl_status bl_job_run(const bl_job *job, const bl_job_data *j, const bl_progress *progress,
                     bl_run_result *result)
{
    bl_setting setting;
    bl_status status = bl_setting_parse(job->arm, &setting);
    if (status == BL_OK)
        status = run(job, j, &setting, progress, result);
    bl_setting_free(&setting);
    return status;
}

bl_status bl_job_preparation(const bl_job *job, const bl_job_data *j, bl_preparation **out)
{
    bl_split s = {0};
    bl_status status = split(j, job->replicate, &s);
    if (status == BL_OK)
        status = bl_preparation_fit(&j->set, s.train, s.train_count, out);
    bl_split_free(&s);
    return status;
}
