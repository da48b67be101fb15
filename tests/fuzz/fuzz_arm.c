/* What a user writes for an arm, and a setting: "elr(beta=0.7)+ema @ learning_rate=0.1". */
#include "fuzz.h"

#include "study/setting.h"

static void fuzz(const char *bytes, size_t count)
{
    char *text = text_of(bytes, count);
    bl_arm arm;
    bl_status status = bl_arm_parse(text, &arm);
    check_sentence(status);
    if (status == BL_OK) {
        bl_arm again;
        if (bl_arm_parse(arm.text, &again) != BL_OK || strcmp(again.text, arm.text) != 0 ||
            bl_arm_traits(&again) != bl_arm_traits(&arm))
            abort(); /* what it calls itself is the same arm */
        bl_arm_free(&again);
        bl_arm_free(&arm);
    }
    bl_setting setting;
    check_sentence(bl_setting_parse(text, &setting));
    bl_setting_free(&setting);
    bl_release(text);
}
