/* ballast check FILE...: functions against reference cases. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/base.h"
#include "cli.h"
#include "methods/method.h"

typedef struct devices {
    const bl_device *at[2];
    const char *name[2];
    int count;
} devices;

/* Without the fast executor the reference stands in for it. */
static bool choose(const char *text, devices *out)
{
    bool both = strcmp(text, "both") == 0;
    if (!both && strcmp(text, "cpu") != 0 && strcmp(text, "reference") != 0)
        return false;
    if (both || strcmp(text, "cpu") == 0) {
        out->at[out->count] = bl_device_named("cpu");
        out->name[out->count] = "cpu";
        out->count += out->at[out->count] != NULL;
    }
    if (both || out->count == 0) {
        out->at[out->count] = bl_device_reference();
        out->name[out->count++] = "reference";
    }
    return true;
}

/* A case has passed where it has on every device; `result` is the first failure or the last pass.
 */
static bl_status check_file(const char *path, const devices *d, bl_check_result *result,
                            const char **device)
{
    for (int i = 0; i < d->count; i++) {
        *device = d->name[i];
        BL_TRY(bl_check_case(path, d->at[i], result));
        if (!result->passed)
            break;
    }
    return BL_OK;
}

static void print_result(const char *path, const bl_check_result *r, const char *device)
{
    if (r->passed)
        printf("ok    %s\n", path);
    else
        printf("FAIL  %s (%s): %s\n", path, device, r->message ? r->message : "");
}

static json_t *result_json(const char *path, const bl_check_result *r, const char *device)
{
    json_t *one = json_pack("{s:s, s:b}", "file", path, "passed", r->passed);
    if (r->passed)
        json_object_set_new(one, "worst", json_real(r->worst)); /* of what is allowed */
    else
        json_object_set_new(one, "message", json_string(r->message ? r->message : ""));
    if (!r->passed)
        json_object_set_new(one, "device", json_string(device));
    return one;
}

static int print_json(json_t *cases, int passed, int failed)
{
    json_t *all = json_pack("{s:o, s:i, s:i}", "cases", cases, "passed", passed, "failed", failed);
    char *text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
    json_decref(all);
    if (!text)
        return cli_fail("check", BL_NO_MEMORY);
    puts(text);
    free(text);
    return failed ? CLI_NO : CLI_OK;
}

static int check_all(const cli_texts *files, const devices *d, bool json)
{
    int passed = 0, failed = 0;
    json_t *cases = json ? json_array() : NULL;
    for (int i = 0; i < files->count; i++) {
        bl_check_result result = {0};
        const char *device = "";
        bl_status status = check_file(files->at[i], d, &result, &device);
        if (status != BL_OK) {
            json_decref(cases);
            bl_release(result.message);
            return cli_fail("check", status);
        }
        passed += result.passed;
        failed += !result.passed;
        if (json)
            json_array_append_new(cases, result_json(files->at[i], &result, device));
        else
            print_result(files->at[i], &result, device);
        bl_release(result.message);
    }
    if (json)
        return print_json(cases, passed, failed);
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? CLI_NO : CLI_OK;
}

int cli_check(int argc, char **argv)
{
    bool json = false;
    const char *device = "cpu";
    const cli_option options[] = {
        {.name = "device",
         .kind = CLI_TEXT,
         .value = &device,
         .argument = "NAME",
         .text = "cpu (default), reference (one plain loop for each primitive), or both"},
        {.name = "json", .kind = CLI_FLAG, .value = &json, .text = "print JSON"},
        {0}};
    const cli_usage usage = {
        .command = "check",
        .synopsis = "ballast check FILE... [--device cpu|reference|both] [--json]",
        .description = "Runs reference cases: safetensors files with the inputs (in.*), outputs "
                       "(out.*), cotangents (cot.*) and gradients (grad.*) of one function, "
                       "named in the metadata with its options. A line for each case; the exit "
                       "status is 0 only if all passed.",
        .options = {options},
        .least = 1,
        .most = -1};
    cli_texts operands = {0};
    int status = cli_parse(&usage, argc, argv, &operands);
    if (status >= 0)
        return status;
    devices d = {0};
    if (!choose(device, &d)) {
        fprintf(stderr, "ballast check: --device is \"%s\", but must be cpu, reference or both\n",
                device);
        return CLI_BAD;
    }
    return check_all(&operands, &d, json);
}
