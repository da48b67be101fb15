/* Learning-rate schedules: the rate of a step is a function of its number alone, so that a resumed
 * run continues exactly. To add one, write a shape (the rate's multiple at a share of the run) and
 * a row of the table. */
#include <math.h>
#include <string.h>

#include "train/training.h"

static const double pi = 3.14159265358979323846;

static double constant(const bl_recipe *recipe, int64_t step, int64_t steps)
{
    (void)recipe, (void)step, (void)steps;
    return 1;
}

/* Multiplied by step_factor after each share in step_at, at a whole epoch. */
static double by_steps(const bl_recipe *recipe, int64_t step, int64_t steps)
{
    int64_t epoch = step / (steps / recipe->epochs); /* from 0 */
    double factor = 1;
    for (int i = 0; i < 4 && recipe->step_at[i] > 0; i++)
        if (epoch >= llround(recipe->step_at[i] * (double)recipe->epochs))
            factor *= recipe->step_factor;
    return factor;
}

static double cosine(const bl_recipe *recipe, int64_t step, int64_t steps)
{
    (void)recipe;
    return 0.5 * (1 + cos(pi * (double)step / (double)steps));
}

static double between(double from, double to, double share)
{
    return to + (from - to) * 0.5 * (1 + cos(pi * share));
}

/* Smith 2018: up from 1/25 over 30 % of the run, then down to 1/250000, along cosines. */
static double one_cycle(const bl_recipe *recipe, int64_t step, int64_t steps)
{
    (void)recipe;
    double share = (double)step / (double)steps;
    return share < 0.3 ? between(0.04, 1, share / 0.3)
                       : between(1, 0.04 * 1e-4, (share - 0.3) / 0.7);
}

static const struct {
    const char *name;
    double (*shape)(const bl_recipe *recipe, int64_t step, int64_t steps);
} table[] = {
    {"constant", constant}, {"step", by_steps}, {"cosine", cosine}, {"one_cycle", one_cycle}};

static int find(const char *name)
{
    for (int i = 0; i < (int)(sizeof table / sizeof *table); i++)
        if (strcmp(table[i].name, name) == 0)
            return i;
    return -1;
}

bl_status bl_schedule_check(const bl_recipe *recipe)
{
    if (find(recipe->schedule) < 0)
        return bl_fail(BL_INVALID,
                       "unknown schedule \"%s\": there are constant, step, cosine, one_cycle",
                       recipe->schedule);
    return BL_OK;
}

double bl_learning_rate(const bl_recipe *recipe, int64_t step, int64_t steps)
{
    int i = find(recipe->schedule);
    return i < 0 || steps < 1 ? NAN : recipe->learning_rate * table[i].shape(recipe, step, steps);
}
