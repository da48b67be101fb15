/* How much arithmetic and memory traffic a primitive is, for explain, work and rooflines. */
#ifndef BL_EXEC_WORK_H
#define BL_EXEC_WORK_H

#include "graph/node.h"

/* 1 an element for elementwise primitives and reductions, 2 a multiply-add for contractions,
 * n log2 n for a sort, 0 for what only moves data. */
double bl_node_flops(const bl_graph *g, int32_t id);
/* Its operands read once and its result written once. */
double bl_node_bytes(const bl_graph *g, int32_t id);

#endif
