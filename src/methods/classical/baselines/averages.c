/* Averages of weights: training goes on as ever, and what is evaluated is an average of the weights
 * along the way. */
#include "methods/classical/baselines/weights.h"

/* --- stochastic weight averaging: equal weights, once an epoch, late -------------------------- */

#define BASE_SWA_UPDATE(IN, OPT, OUT)                                                              \
    IN(avg, "f32[S...]", "", "average so far")                                                     \
    IN(w, "f32[S...]", "", "weights now")                                                          \
    IN(n, "i32[]", ">= 0", "how many are in the average")                                          \
    OUT(avg_new, "f32[S...]", "avg + (w - avg) / (n + 1)")                                         \
    OUT(n_new, "i32[]", "n + 1")

BL_CONTRACT(base_swa_update, BASE_SWA_UPDATE, "one more entry in a mean (Izmailov et al. 2018)")
{
    f->n_new = bl_add(f->n, 1);
    f->avg_new = bl_add(f->avg, bl_div(bl_sub(f->w, f->avg), bl_cast(f->n_new, BL_F32)));
}

#define SWA(OPT)                                                                                   \
    OPT(start, 0.75, "[0,1), tune [0.5,0.9]", "share of the epochs after which averaging begins")

BL_ARM_OPTIONS(swa, SWA)

/* The formula of base_swa_update, once an epoch and on the host. */
static bl_status swa_epoch(bl_training *t, const void *options)
{
    const struct swa *o = options;
    if ((double)bl_training_epoch(t) <= o->start.number * (double)bl_training_epochs(t))
        return BL_OK;
    bl_array *n = bl_training_state(t, "n");
    double next = bl_array_get(n, 0) + 1;
    const bl_parameter *parameter;
    int parameters = bl_training_parameters(t, &parameter);
    for (int i = 0; i < parameters; i++) {
        bl_array *w = bl_training_parameter(t, i);
        bl_array *average = bl_training_parameter_state(t, "average", i);
        int64_t count = bl_array_count(w);
        for (int64_t j = 0; j < count; j++) {
            double a = bl_array_get(average, j);
            bl_array_set(average, j, a + (bl_array_get(w, j) - a) / next);
        }
    }
    bl_array_set(n, 0, next);
    return BL_OK;
}

static void swa_evaluate(bl_step *s, BL_UNUSED_ const void *options)
{
    bl_tensor started = bl_gt(bl_state(s, "n"), 0);
    for (int i = 0; i < s->parameters; i++) {
        bl_tensor average = bl_parameter_state(s, "average", i, BL_START_ZERO);
        s->raw[i] = bl_select(started, average, s->raw[i]);
    }
}

const bl_method bl_swa = {
    .slug = "swa",
    .family = "classical",
    .paper = "Izmailov et al. 2018, arXiv 1803.05407",
    .summary = "evaluates the mean of the last epochs' weights",
    .when = "Almost free, and steady. Best with a learning rate that stays up in the last quarter; "
            "batch-norm statistics are computed anew for the mean.",
    .functions = {&base_swa_update_contract},
    .options = &swa_contract,
    .example = "--arm \"swa(start=0.75)\"",
    .hooks = &(const bl_hooks){.epoch = swa_epoch,
                               .evaluate = swa_evaluate,
                               .renew_statistics = true,
                               .state = {{"n", "i32[]", 0.0}}},
};

/* --- exponential moving average: every step ----------------------------------------------------
 */

#define BASE_EMA_UPDATE(IN, OPT, OUT)                                                              \
    IN(avg, "f32[S...]", "", "average so far")                                                     \
    IN(w, "f32[S...]", "", "weights now")                                                          \
    IN(step, "i32[]", ">= 0", "0 for the first step")                                              \
    OPT(decay, 0.999, "[0,1], tune [0.9,0.9999] complement", "share of the average kept")          \
    OPT(warmup, 0, "flag", "keep at most (1+step)/(10+step)")                                      \
    OUT(avg_new, "f32[S...]", "d avg + (1-d) w, d = decay or less in the warm-up")

BL_CONTRACT(base_ema_update, BASE_EMA_UPDATE, "one step of an exponential moving average")
{
    bl_tensor d = f->decay, t = bl_cast(f->step, BL_F32);
    if (f->warmup)
        d = bl_min(bl_div(bl_add(t, 1), bl_add(t, 10)), d);
    f->avg_new = bl_add(bl_mul(d, f->avg), bl_mul(bl_sub(1, d), f->w));
}

static void ema_update(bl_step *s, const void *options)
{
    for (int i = 0; i < s->parameters; i++) {
        struct base_ema_update f = *(const struct base_ema_update *)options;
        f.avg = bl_parameter_state(s, "average", i, BL_START_AT_PARAMETER);
        f.w = s->updated[i];
        f.step = s->step;
        bl_call(base_ema_update, &f);
        bl_set_parameter_state(s, "average", i, f.avg_new);
    }
}

static void ema_evaluate(bl_step *s, BL_UNUSED_ const void *options)
{
    for (int i = 0; i < s->parameters; i++)
        s->raw[i] = bl_parameter_state(s, "average", i, BL_START_AT_PARAMETER);
}

const bl_method bl_ema = {
    .slug = "ema",
    .family = "classical",
    .paper = "Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv 1703.01780",
    .summary = "evaluates a moving average of the weights",
    .when = "Almost free. The average reaches back about 1 / (1 - decay) steps: in short runs take "
            "0.99, or warmup=true.",
    .functions = {&base_ema_update_contract},
    .example = "--arm \"ema(decay=0.99)\"",
    .hooks = &(const bl_hooks){.update = ema_update, .evaluate = ema_evaluate},
};
