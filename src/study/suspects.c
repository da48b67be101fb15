/* Collecting suspects from the stored runs. */
#include "study/suspects.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "study/export.h"
#include "study/setting.h"

bool bl_arm_doubts(const char *arm)
{
    bl_setting setting;
    bool doubts = false;
    if (bl_setting_parse(arm, &setting) != BL_OK)
        return false;
    for (int i = 0; i < setting.arm.parts; i++)
        doubts = doubts || setting.arm.part[i].hooks->beliefs;
    bl_setting_free(&setting);
    return doubts;
}

static int64_t whole(const json_t *run, const char *list, size_t i)
{
    return json_integer_value(json_array_get(json_object_get(run, list), i));
}

static void add_run(const json_t *run, int replicates, bl_suspects *s)
{
    json_t *truth = json_object_get(run, "truth");
    size_t count = json_array_size(json_object_get(run, "example"));
    for (size_t i = 0; i < count; i++) {
        double doubt = json_number_value(json_array_get(json_object_get(run, "doubt"), i));
        bl_suspected *one = &s->at[s->count++];
        *one = (bl_suspected){.example = (int32_t)whole(run, "example", i),
                              .given = (int32_t)whole(run, "given", i),
                              .believed = (int32_t)whole(run, "believed", i),
                              .truth = json_is_array(truth) ? (int32_t)whole(run, "truth", i) : -1,
                              .runs = 1,
                              .doubt = doubt / replicates};
        s->right += one->truth >= 0 && one->truth != one->given;
        s->suspected += one->truth >= 0;
    }
    s->wrong += json_integer_value(json_object_get(run, "wrong"));
}

static int same_labels_together(const void *a, const void *b)
{
    const bl_suspected *p = a, *q = b;
    if (p->example != q->example)
        return p->example < q->example ? -1 : 1;
    if (p->given != q->given)
        return p->given < q->given ? -1 : 1;
    return (p->believed > q->believed) - (p->believed < q->believed);
}

static int most_doubtful_first(const void *a, const void *b)
{
    const bl_suspected *p = a, *q = b;
    if (p->doubt != q->doubt)
        return p->doubt > q->doubt ? -1 : 1;
    return same_labels_together(a, b);
}

/* Adds up those that are the same in several runs. */
static void merge(bl_suspects *s)
{
    int kept = 0;
    qsort(s->at, (size_t)s->count, sizeof *s->at, same_labels_together);
    for (int i = 0; i < s->count; i++)
        if (kept && same_labels_together(&s->at[kept - 1], &s->at[i]) == 0) {
            s->at[kept - 1].runs++;
            s->at[kept - 1].doubt += s->at[i].doubt;
        } else {
            s->at[kept++] = s->at[i];
        }
    s->count = kept;
    qsort(s->at, (size_t)s->count, sizeof *s->at, most_doubtful_first);
}

bl_status bl_suspects_of(const bl_outcome *o, int a, bl_suspects *out)
{
    *out = (bl_suspects){0};
    size_t room = 0;
    for (int r = 0; r < o->replicates; r++) {
        const json_t *run = json_object_get(o->arm[a].result[r], "suspects");
        room += json_array_size(json_object_get(run, "example"));
    }
    if (!room)
        return BL_OK;
    if (!(out->at = bl_alloc(room * sizeof *out->at)))
        return bl_no_memory(room * sizeof *out->at);
    for (int r = 0; r < o->replicates; r++)
        add_run(json_object_get(o->arm[a].result[r], "suspects"), o->arm[a].runs, out);
    merge(out);
    return BL_OK;
}

static void csv_row(const bl_outcome *o, const char *arm, const bl_suspected *s, bl_text *text)
{
    const char *source = bl_job_example(o->data, s->example);
    bl_text_add_cell(text, arm, ',');
    bl_text_add(text, ",%d,", s->example);
    bl_text_add_cell(text, source ? source : "", ',');
    bl_text_add(text, ",");
    bl_text_add_cell(text, bl_job_class(o->data, s->given), ',');
    bl_text_add(text, ",");
    bl_text_add_cell(text, bl_job_class(o->data, s->believed), ',');
    bl_text_add(text, ",%.4f,%d,", s->doubt, s->runs);
    if (s->truth >= 0)
        bl_text_add_cell(text, bl_job_class(o->data, s->truth), ',');
    bl_text_add(text, "\n");
}

bl_status bl_suspects_csv(const bl_outcome *o, bl_text *text)
{
    bl_text_add(text, "arm,row,source,given,believed,doubt,runs,true\n");
    for (int a = 0; a < o->arms; a++) {
        bl_suspects s;
        BL_TRY(bl_suspects_of(o, a, &s));
        for (int i = 0; i < s.count; i++)
            csv_row(o, o->arm[a].arm, &s.at[i], text);
        bl_release(s.at);
    }
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}
