/* Models: a forward pass asks for its parameters and names its sites by path, and never mentions a
 * regularizer.
 *
 *     static bl_tensor two_layers(bl_model *m, bl_tensor x)
 *     {
 *         bl_tensor hidden = bl_relu(bl_dense(m, "dense1", x, 128));
 *         hidden = bl_site(m, "dense1/out", BL_SITE_HIDDEN, 0, hidden);
 *         return bl_classifier(m, bl_relu(bl_dense(m, "dense2", hidden, 128)));
 *     }
 *
 * The same function is visited once to declare the parameters (their shapes follow from the
 * input's) and again for every graph. Who builds the graph supplies the callbacks: values of
 * parameters, what happens at a site, running statistics. */
#ifndef BL_NN_H
#define BL_NN_H

#include "ballast/graph.h"

typedef enum bl_role {
    BL_WEIGHT, /* matrices and kernels: decayed, reparameterised, pruned */
    BL_BIAS,
    BL_GAIN /* scale and shift of a normalisation layer */
} bl_role;

/* How a parameter starts. fan_in is the product of all sizes but the last. */
typedef enum bl_initializer {
    BL_INIT_ZERO,
    BL_INIT_ONE,
    BL_INIT_HE,     /* normal, sd sqrt(2 / fan_in) */
    BL_INIT_GLOROT, /* normal, sd sqrt(2 / (fan_in + fan_out)) */
    BL_INIT_LECUN   /* normal, sd sqrt(1 / fan_in): the classifier, which no relu follows */
} bl_initializer;

typedef struct bl_parameter {
    const char
        *path;    /* "dense1/weight"; the last layer is "classifier/weight", "classifier/bias" */
    bl_type type; /* dense weights are [in,out], filters [h,w,in,out]: the output channel is last */
    bl_role role;
    bl_initializer start;
    bool classifier; /* belongs to the last layer */
} bl_parameter;

typedef enum bl_site_kind {
    BL_SITE_HIDDEN,   /* after the activation of a hidden dense layer, [B,K] */
    BL_SITE_FEATURES, /* the classifier's input, [B,K]. In an MLP this is the last hidden layer's
                         output, which is then offered as FEATURES and not as HIDDEN too */
    BL_SITE_IMAGE,    /* after the activation of a convolution, [B,H,W,C] */
    BL_SITE_BRANCH    /* a residual branch before it is added, [B,..] */
} bl_site_kind;

typedef struct bl_site_info {
    const char *path; /* "block1/branch" */
    bl_site_kind kind;
    double depth; /* of a branch: l / L, 1 for the last; 0 elsewhere */
} bl_site_info;

typedef struct bl_model bl_model;

/* The architecture as data. */
typedef struct bl_architecture {
    const char *name;     /* "mlp", "cnn", "resnet20", "linear" */
    int64_t width, depth; /* mlp: of the hidden layers; cnn: width of the first convolution */
    int64_t outputs;      /* classes, or values in regression */
    double output_bias;   /* initial value of the classifier's bias */
} bl_architecture;

typedef bl_tensor bl_forward_function(bl_model *m, bl_tensor x);

/* Callbacks of whoever builds the graph; `context` is his. */
struct bl_model {
    bl_architecture architecture;
    bl_graph *graph;
    bool training;  /* batch normalisation by the batch's statistics, which it records */
    bl_tensor rate; /* share of the batch's statistics in the next running ones: 0.1 */
    void *context;
    bl_tensor (*parameter)(void *context, const bl_parameter *declaration);
    bl_tensor (*site)(void *context, const bl_site_info *site, bl_tensor value);
    /* Running statistics: the current value of state `path`, and its next one. */
    bl_tensor (*statistic)(void *context, const char *path, bl_type type, double initial);
    void (*set_statistic)(void *context, const char *path, bl_tensor next);
    bl_tensor features; /* set by bl_classifier: its input */
};

/* The forward pass of the architecture: [B,D] or [B,H,W,C] to [B,outputs]. Poison, with a message
 * that lists the known names or says which inputs the model needs. */
bl_tensor bl_model_forward(bl_model *m, bl_tensor x);
int bl_model_count(void);
const char *bl_model_name(int i);
bool bl_model_needs_images(const char *name);

/* A model's row in the table of model.c. `images`: it takes [B,H,W,C] only. */
typedef struct bl_model_entry {
    const char *name;
    bl_forward_function *forward;
    bool images;
} bl_model_entry;
bl_forward_function bl_linear_model, bl_mlp_model, bl_cnn_model, bl_resnet20_model;

/* --- layers ----------------------------------------------------------------------------------- */
/* "block3/conv1" for the length of the enclosing block: BL_PATH("block%d/conv1", 3). */
#define BL_PATH(...)  bl_path((char[BL_PATH_BYTES]){0}, __VA_ARGS__)
#define BL_PATH_BYTES 96
const char *bl_path(char bytes[BL_PATH_BYTES], const char *format, ...) BL_PRINTF(2, 3);
bl_tensor bl_flatten(bl_tensor x); /* [B,..] -> [B,D] */
bl_tensor bl_param(bl_model *m, const char *path, bl_shape shape, bl_role role,
                   bl_initializer start);
bl_tensor bl_site(bl_model *m, const char *path, bl_site_kind kind, double depth, bl_tensor value);
bl_tensor bl_dense(bl_model *m, const char *path, bl_tensor x,
                   int64_t outputs); /* [B,I] -> [B,outputs], with bias; He */
bl_tensor bl_convolution(bl_model *m, const char *path, bl_tensor x, int64_t size, int64_t channels,
                         int64_t stride, bool bias); /* size x size, padding "same" */
/* Batch statistics while training, with running averages (1 - rate of the old, rate of the new,
 * unbiased variance); running ones in evaluation. eps 1e-5. Over all axes but the last. */
bl_tensor bl_batch_norm(bl_model *m, const char *path, bl_tensor x);
bl_tensor bl_layer_norm(bl_model *m, const char *path,
                        bl_tensor x); /* over the last axis, eps 1e-5 */
/* The last layer, at "classifier"; records its input as the features and offers it as a site. */
bl_tensor bl_classifier(bl_model *m, bl_tensor x);

#endif
