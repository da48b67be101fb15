/* What a graph is made of, for the passes and the executors.
 *
 * Nodes live in one growing table, in topological order: operands have smaller ids. A node is never
 * changed after it is built; a pass writes a new graph. */
#ifndef BL_GRAPH_NODE_H
#define BL_GRAPH_NODE_H

#include <stdatomic.h>

#include "ballast/graph.h"

typedef enum bl_op {
#define OP(class, name, operands, meaning, text) BL_OP_##name,
#include "graph/ops.def"
#undef OP
    BL_OPS
} bl_op;

typedef enum bl_op_class {
    BL_LEAF, BL_UNARY, BL_BINARY, BL_TERNARY, BL_MOVE, BL_INDEX, BL_REDUCE, BL_CONTRACT, BL_LINALG, BL_CONTROL
} bl_op_class;

/* The body of a loop: a graph of its own that is complete, and never changed from then on. Nodes of
 * several graphs may run the same body, so it is counted. Its inputs are the carries, what differs
 * from step to step, and the outer values that it uses, in the order of the node's operands. Those
 * of while are the carries and the outer values; its first output is whether to go on. */
typedef struct bl_body {
    bl_graph *graph;
    int inputs, outputs;
    const int32_t *input, *output; /* node ids, in the graph's arena */
    atomic_int users;
} bl_body;

/* What a control primitive has beside its operands. */
typedef struct bl_control {
    bl_body *body;           /* of scan and while, else NULL */
    int64_t steps;           /* of scan; the most of while */
    int carries;             /* scan, while */
    int inputs;              /* scan: operands [steps,..] of which each step gets one row */
    int outputs;             /* scan: stacked results; override_gradient: values */
    int results;
    const bl_type *result;   /* scan: carries, outputs; while: i32[] and carries */
    bl_gradient_rule *rule;  /* override_gradient */
    void *context;
} bl_control;

/* Parameters of a primitive; ops.def says which it uses, the others are zero, so that two nodes are
 * equal when their bytes are. */
typedef struct bl_attr {
    int axis;
    uint32_t axes;           /* bit i: axis i */
    bool flag, flag2;
    double value;
    const bl_control *control; /* in the graph's arena; or NULL */
    const void *data;        /* constant: bl_type_bytes of the node, in the graph's arena; or NULL */
    int64_t a[BL_MAX_RANK], b[BL_MAX_RANK], c[BL_MAX_RANK];
    bl_conv_options conv;    /* normalised: strides, dilations and groups at least 1 */
} bl_attr;

typedef struct bl_node {
    bl_op op;
    int operands;
    int32_t operand_small[3];
    int32_t *operand;        /* operand_small, or in the arena for concat */
    bl_type type;
    const bl_attr *attr;     /* never NULL */
    const char *name;        /* of an input, else NULL */
    const char *scope;       /* "elr_loss/reg" or "" */
    const char *file;
    int line;
} bl_node;

bl_op_class bl_op_class_of(bl_op op);
const char *bl_op_name(bl_op op);
bool bl_op_is_elementwise(bl_op op);    /* unary, binary, ternary */
/* The meaning column, for the elementwise ones. */
double bl_op_scalar(bl_op op, double x, double y, double z);

const bl_node *bl_node_at(const bl_graph *g, int32_t id);
struct bl_arena *bl_graph_arena(bl_graph *g);

/* Adds a node after checking it with the primitive's type rule; poison if the rule refuses. */
bl_tensor bl_node_new(bl_graph *g, bl_op op, const bl_tensor *operands, int count, bl_attr attr);
/* Same, where the rule needs to be told the result (input, constant, iota, reshape, broadcast, cast, conv_dx, ..). */
bl_tensor bl_node_new_typed(bl_graph *g, bl_op op, const bl_tensor *operands, int count,
                            bl_attr attr, bl_type type);

/* --- nodes with several results, and bodies */
/* Where result i lies: its first byte. Result `results` would lie at the end. */
int64_t bl_result_place(const bl_control *control, int i);
/* Result i of a node with several. */
bl_tensor bl_part(bl_tensor z, int i);
/* The type of input or output i of a body. */
bl_type bl_body_input(const bl_body *body, int i);
bl_type bl_body_output(const bl_body *body, int i);

/* A graph for a body, whose builders may use the tensors of `outer` and of what is around it; NULL,
 * with outer in error, if memory is short. */
bl_graph *bl_body_open(bl_graph *outer);
/* The tensor of g that stands for t, a tensor of g or of a graph around it: an input that was added
 * for it, or a copy of a constant. Poison if it is of another graph. */
bl_tensor bl_capture(bl_graph *g, bl_tensor t);
/* Completes a body: its inputs are `input` and then what was captured, which is appended to the
 * `operands` tensors of the graph around it. Takes `g`, also when it fails: NULL, and the graph
 * around it has the error. The graph around it holds the body. */
bl_body *bl_body_close(bl_graph *g, const bl_tensor *input, int inputs, const bl_tensor *output,
                       int outputs, bl_tensor **operand, int *operands);
/* A body of a graph that is complete, with one user; takes g, also when it fails (NULL). */
bl_body *bl_body_new(bl_graph *g, const bl_tensor *input, int inputs, const bl_tensor *output,
                     int outputs);
/* g keeps the body until it is freed, as one more user. False if memory is short. */
bool bl_body_hold(bl_graph *g, bl_body *body);
void bl_body_drop(bl_body *body);
/* Copies what a body's outputs need into g, in place of its inputs these tensors of g. False, and g
 * in error, if memory is short. */
bool bl_body_inline(bl_graph *g, const bl_body *body, const bl_tensor *input, bl_tensor *output);

/* Adds a node like `like`, which may belong to another graph or to none, with these operands of g;
 * its attributes, data, name and place are copied into g. Unchecked: for the passes. Poison, with
 * the graph's status set, if memory is short. */
bl_tensor bl_node_copy(bl_graph *g, const bl_node *like, const int32_t *operand);
/* The type that `op`'s rule gives these operands; bl_no_type, and g in error, if it refuses. */
bl_type bl_node_type(bl_graph *g, bl_op op, const bl_type *operands, int count,
                     const bl_attr *attr, bl_type wanted);

/* --- rules -----------------------------------------------------------------------------------
 * TYPE(take) { .. } computes the result's type from the operands' types x[0..n), the attributes
 * and, for primitives that are told it, `wanted`; REQUIRE refuses with a sentence.
 * VJP(take) { .. } adds the nodes of the gradient: dx[i] for the operands x[i], given z, the node's
 * value, and g, its cotangent. dx[i] left alone is zero. A rule must be linear in g, and give zero
 * for a zero g whatever the operands are: that is how a gradient is never NaN where the value is
 * finite. Work for an operand that needs no gradient can be skipped: if (WANT(1)) dx[1] = ..;
 * A node with several results has their cotangents in gs, bare 0 where there is none, and no g. */
typedef bl_type bl_type_rule(bl_graph *g, const bl_type *x, int n, const bl_attr *attr, bl_type wanted);
typedef void bl_vjp_rule(bl_graph *graph, const bl_attr *attr, bl_tensor z, const bl_tensor *x,
                         int n, bl_tensor g, const bl_tensor *gs, bl_tensor *dx);

#define BL_UNUSED __attribute__((unused))
#define TYPE(name)                                                                                 \
    bl_type name##_type(BL_UNUSED bl_graph *graph, BL_UNUSED const bl_type *x, BL_UNUSED int n,    \
                        BL_UNUSED const bl_attr *attr, BL_UNUSED bl_type wanted)
#define VJP(name)                                                                                  \
    void name##_vjp(BL_UNUSED bl_graph *graph, BL_UNUSED const bl_attr *attr,                      \
                    BL_UNUSED bl_tensor z, BL_UNUSED const bl_tensor *x, BL_UNUSED int n,          \
                    BL_UNUSED bl_tensor g, BL_UNUSED const bl_tensor *gs,                          \
                    BL_UNUSED bl_tensor *dx)
#define WANT(i) (!bl_is_poison(dx[i]))
/* Written out where a primitive has no gradient: one that is asked for is an error with its name. */
#define NO_GRADIENT(name)                                                                          \
    VJP(name) { bl_poison(graph, "%s has no gradient", #name); }
/* The gradient is zero everywhere (comparisons, argmax, ..). */
#define ZERO_GRADIENT(name)                                                                        \
    VJP(name) {}

#define OP(class, name, operands, meaning, text)                                                   \
    bl_type_rule name##_type;                                                                      \
    bl_vjp_rule name##_vjp;
#include "graph/ops.def"
#undef OP

/* Refuses in a TYPE rule: the message is prefixed with the primitive's name. */
#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            bl_poison(graph, __VA_ARGS__);                                                         \
            return bl_no_type;                                                                     \
        }                                                                                          \
    } while (0)
extern const bl_type bl_no_type; /* rank -1 */
/* "f32[3,4]" for messages; four results may be alive at once. */
const char *bl_show(bl_type type);

/* --- passes ----------------------------------------------------------------------------------- */
/* Writes into a new graph what `outputs` need: constants folded, identities simplified, common
 * subexpressions merged, dead nodes left out. outputs_new[i] and inputs_new[i] correspond; an input that nothing
 * needs is still there. */
bl_status bl_optimize(const bl_tensor *inputs, int input_count, const bl_tensor *outputs,
                      int output_count, bl_graph **out, bl_tensor *inputs_new, bl_tensor *outputs_new);
/* Checks every node against its type rule, for debug builds. */
bl_status bl_verify(const bl_graph *g);

/* Elementwise meanings that need more than libm. */
double bl_sigmoid_scalar(double x);
double bl_lgamma_scalar(double x);
double bl_digamma_scalar(double x);
double bl_trigamma_scalar(double x);

#endif
