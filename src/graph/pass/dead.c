/* Dead code: what no output needs is left out. Operands have smaller ids than their users, so one
 * walk backwards marks everything. */
#include "graph/pass/pass.h"

void bl_mark_live(const bl_graph *g, const bl_tensor *outputs, int count, bool *live)
{
    for (int o = 0; o < count; o++)
        live[outputs[o].id] = true;
    bl_mark_operands(g, live);
}

void bl_mark_operands(const bl_graph *g, bool *live)
{
    for (int32_t id = (int32_t)bl_graph_size(g) - 1; id >= 0; id--) {
        const bl_node *node = bl_node_at(g, id);
        for (int i = 0; live[id] && i < node->operands; i++)
            live[node->operand[i]] = true;
    }
}

int bl_most_operands(const bl_graph *g)
{
    int most = 3;
    for (int32_t id = 0; id < (int32_t)bl_graph_size(g); id++)
        if (bl_node_at(g, id)->operands > most)
            most = bl_node_at(g, id)->operands;
    return most;
}

static bl_status copy_marked(const bl_graph *g, const bool *live, int32_t *map, int32_t *operand,
                             bl_graph *to)
{
    for (int32_t id = 0; id < (int32_t)bl_graph_size(g); id++) {
        if (!live[id])
            continue;
        const bl_node *node = bl_node_at(g, id);
        for (int i = 0; i < node->operands; i++)
            operand[i] = map[node->operand[i]];
        bl_tensor copy = bl_node_copy(to, node, operand);
        if (bl_is_poison(copy))
            return bl_graph_status(to);
        map[id] = copy.id;
    }
    return BL_OK;
}

bl_status bl_copy_live(const bl_graph *g, const bl_tensor *inputs, int input_count,
                       const bl_tensor *outputs, int output_count, bl_graph **out,
                       bl_tensor *inputs_new, bl_tensor *outputs_new)
{
    size_t nodes = (size_t)bl_graph_size(g);
    bool *live = bl_alloc(nodes);
    int32_t *map = bl_alloc(nodes * sizeof *map);
    int32_t *operand = bl_alloc((size_t)bl_most_operands(g) * sizeof *operand);
    *out = bl_graph_new();
    bl_status status = live && map && operand && *out ? BL_OK : bl_no_memory(nodes * sizeof *map);
    if (status == BL_OK) {
        bl_mark_live(g, outputs, output_count, live);
        for (int i = 0; i < input_count; i++)
            live[inputs[i].id] = true;
        status = copy_marked(g, live, map, operand, *out);
    }
    for (int i = 0; i < input_count && status == BL_OK; i++)
        inputs_new[i] = (bl_tensor){.graph = *out, .id = map[inputs[i].id]};
    for (int o = 0; o < output_count && status == BL_OK; o++)
        outputs_new[o] = (bl_tensor){.graph = *out, .id = map[outputs[o].id]};
    bl_release(live);
    bl_release(map);
    bl_release(operand);
    if (status != BL_OK) {
        bl_graph_free(*out);
        *out = NULL;
    }
    return status;
}
