/* The table of models, and the two things a forward pass asks of whoever builds the graph: a
 * parameter by path, and what happens at a site. To add a model, write a bl_forward_function in its
 * own file (mlp.c is the shortest), declare it in nn.h and add a row here. */
#define BL_KEEP_PLACE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "nn/nn.h"

static const bl_model_entry model_table[] = {
    {"linear", bl_linear_model, false},    /* one linear layer on the flattened inputs */
    {"mlp", bl_mlp_model, false},          /* hidden layers of relu units: width, depth */
    {"cnn", bl_cnn_model, true},           /* two 3x3 convolutions, a dense layer: width */
    {"resnet20", bl_resnet20_model, true}, /* nine residual blocks (He et al. 2016) */
};

int bl_model_count(void)
{
    return (int)(sizeof model_table / sizeof *model_table);
}

const char *bl_model_name(int i)
{
    return i >= 0 && i < bl_model_count() ? model_table[i].name : NULL;
}

bool bl_model_needs_images(const char *name)
{
    for (int i = 0; i < bl_model_count(); i++)
        if (strcmp(model_table[i].name, name) == 0)
            return model_table[i].images;
    return false;
}

static bl_tensor unknown_model(bl_model *m)
{
    const char *name = m->architecture.name ? m->architecture.name : "";
    bl_text known = {0};
    for (int i = 0; i < bl_model_count(); i++)
        bl_text_add(&known, "%s%s", i ? ", " : "", model_table[i].name);
    bl_tensor poison = bl_poison(m->graph, "unknown model \"%s\": there are %s", name,
                                 known.failed ? "others" : known.at);
    bl_text_free(&known);
    return poison;
}

bl_tensor bl_model_forward(bl_model *m, bl_tensor x)
{
    for (int i = 0; i < bl_model_count(); i++) {
        const bl_model_entry *model = &model_table[i];
        if (!m->architecture.name || strcmp(model->name, m->architecture.name) != 0)
            continue;
        if (model->images && bl_rank(x) != 4)
            return bl_poison(m->graph, "%s needs images [B,H,W,C], but an input here has %d axes",
                             model->name, bl_rank(x));
        if (m->architecture.outputs < 1)
            return bl_poison(m->graph, "%s needs at least one output, not %lld", model->name,
                             (long long)m->architecture.outputs);
        return model->forward(m, x);
    }
    return unknown_model(m);
}

const char *bl_path(char bytes[BL_PATH_BYTES], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(bytes, BL_PATH_BYTES, format, arguments);
    va_end(arguments);
    return bytes;
}

bl_tensor bl_param(bl_model *m, const char *path, bl_shape shape, bl_role role,
                   bl_initializer start)
{
    bl_parameter declaration = {.path = path,
                                .type = {BL_F32, shape},
                                .role = role,
                                .start = start,
                                .classifier = strncmp(path, "classifier/", 11) == 0};
    return m->parameter(m->context, &declaration);
}

bl_tensor bl_site(bl_model *m, const char *path, bl_site_kind kind, double depth, bl_tensor value)
{
    bl_site_info info = {.path = path, .kind = kind, .depth = depth};
    return m->site(m->context, &info, value);
}
