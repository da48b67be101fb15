/* Programs: a graph compiled for a device, run as often as you like.
 *
 *     bl_program *p = NULL;
 *     BL_TRY(bl_compile(device, inputs, 3, outputs, 1, NULL, &p));
 *     BL_TRY(bl_run(p, (const bl_array[]){x, y, w}, (bl_array[]){loss}));
 *     bl_program_free(p);
 *
 * bl_run allocates nothing. Two programs may run at once; one program may not run twice at once. */
#ifndef BALLAST_PROGRAM_H
#define BALLAST_PROGRAM_H

#include "ballast/graph.h"

typedef struct bl_device bl_device;
typedef struct bl_program bl_program;

/* The plain executor: one loop per primitive, in double. The definition, and slow. */
BL_API const bl_device *bl_device_reference(void);
/* The fast executor, at OMP_NUM_THREADS threads, 1 if unset. */
BL_API const bl_device *bl_device_cpu(void);
/* "cpu" or "reference"; NULL, with a message that lists what there is, for another name. */
BL_API const bl_device *bl_device_named(const char *name);

/* `output[o]` may be written over the buffer of `input[i]`: pass the same data pointer to both. */
typedef struct bl_donation {
    int input, output;
} bl_donation;

typedef struct bl_compile_options {
    int threads;                 /* 0: the device's default */
    const bl_donation *donation; /* buffers updated in place */
    int donations;
} bl_compile_options;

/* Compiles the graph of `outputs` with `inputs` (nodes of bl_input) as its arguments. Every input
 * that an output depends on must be listed. The graph may be freed or extended afterwards.
 * Errors: the graph's first error; an input not listed; what the device does not support. */
BL_API bl_status bl_compile(const bl_device *device, const bl_tensor *inputs, int input_count,
                            const bl_tensor *outputs, int output_count,
                            const bl_compile_options *options, bl_program **out);

/* Runs once. Array types must be those of the tensors; output buffers belong to the caller and may
 * overlap an input only where donated. Errors: a type that differs; an index out of range. */
BL_API bl_status bl_run(bl_program *program, const bl_array *inputs, const bl_array *outputs);
BL_API void bl_program_free(bl_program *program);

/* What the program does, a kernel a line, with shapes, flops and bytes; NULL if
 * memory is short. bl_free_text it. */
BL_API char *bl_program_explain(const bl_program *program);

/* Arithmetic operations and bytes of memory traffic of one run, counted from the plan. */
typedef struct bl_work {
    double flops, bytes;
    int64_t kernels;
    size_t memory; /* bytes of scratch memory the program holds */
} bl_work;
BL_API bl_work bl_program_work(const bl_program *program);

/* Compiles, runs once and frees: for tests and one-off calls. */
BL_API bl_status bl_evaluate(const bl_device *device, const bl_tensor *inputs,
                             const bl_array *values, int input_count, const bl_tensor *outputs,
                             bl_array *results, int output_count); /* results are allocated */

#endif
