/* Settings as text. One more number of the recipe that arms may be tuned in: a member of
 * bl_setting, a row of `numbers`, and a dimension in space.c. */
#include "study/setting.h"

static const char SEPARATOR[] = " @ ";
static const char *const word[BL_PURPOSES] = {[BL_FOR_VERDICT] = "",
                                              [BL_FOR_TUNING] = "tuning ",
                                              [BL_FOR_SCREENING] = "screening ",
                                              [BL_FOR_PILOT] = "pilot "};

/* "learning_rate=0.021,weight_decay=3e-5" */
static bl_status read_numbers(const char *text, bl_setting *s)
{
    const struct {
        const char *name;
        double *value;
    } numbers[] = {{"learning_rate", &s->learning_rate},
                   {"weight_decay", &s->weight_decay},
                   {"epochs", &s->epochs}};
    while (*text) {
        size_t length = strcspn(text, ",");
        char piece[64], *equals;
        snprintf(piece, sizeof piece, "%.*s", (int)length, text);
        double value;
        bool known = false;
        if (!(equals = strchr(piece, '=')) || !bl_parse_double(equals + 1, &value) || !(value >= 0))
            return bl_fail(BL_INVALID, "setting: \"%s\" is not NAME=NUMBER", piece);
        *equals = 0;
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            if (!strcmp(piece, numbers[i].name)) {
                *numbers[i].value = value;
                known = true;
            }
        if (!known)
            return bl_fail(BL_INVALID,
                           "setting: there is no \"%s\", but learning_rate, weight_decay and "
                           "epochs",
                           piece);
        text += length;
        text += *text == ',';
    }
    return BL_OK;
}

bl_status bl_setting_parse(const char *text, bl_setting *out)
{
    *out = (bl_setting){.learning_rate = NAN, .weight_decay = NAN, .epochs = NAN};
    for (int p = BL_FOR_VERDICT + 1; p < BL_PURPOSES; p++)
        if (!strncmp(text, word[p], strlen(word[p]))) {
            out->purpose = (bl_purpose)p;
            text += strlen(word[p]);
            break;
        }
    const char *numbers = strstr(text, SEPARATOR);
    char *arm = numbers ? bl_format("%.*s", (int)(numbers - text), text) : bl_copy_text(text);
    if (!arm)
        return bl_no_memory(strlen(text));
    bl_status status = numbers ? read_numbers(numbers + sizeof SEPARATOR - 1, out) : BL_OK;
    if (status == BL_OK)
        status = bl_arm_parse(arm, &out->arm);
    bl_release(arm);
    return status;
}

void bl_setting_free(bl_setting *setting)
{
    bl_arm_free(&setting->arm);
    *setting = (bl_setting){0};
}

char *bl_setting_text(const char *arm, double learning_rate, double weight_decay)
{
    return bl_format("%s%slearning_rate=%.6g,weight_decay=%.6g", arm, SEPARATOR, learning_rate,
                     weight_decay);
}

char *bl_setting_for(bl_purpose purpose, const char *setting)
{
    return bl_format("%s%s", word[purpose], setting);
}

char *bl_setting_lasting(const char *setting, int64_t epochs)
{
    return bl_format("%s%sepochs=%lld", setting, strstr(setting, SEPARATOR) ? "," : SEPARATOR,
                     (long long)epochs);
}
