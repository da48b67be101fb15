/* Fits y = w x + b to 64 noisy points by gradient descent: describe, differentiate, compile, run.
 */
#include <ballast/program.h>
#include <stdio.h>

#define TRY(call)                                                                                  \
    if ((call) != BL_OK)                                                                           \
    return fprintf(stderr, "%s\n", bl_error()), 1

int main(void)
{
    enum { N = 64 };
    bl_graph *g = bl_graph_new();
    bl_tensor x = bl_input(g, "x", BL_F32, BL_SHAPE(N)), y = bl_input(g, "y", BL_F32, BL_SHAPE(N));
    bl_tensor p[2] = {bl_input(g, "w", BL_F32, BL_SCALAR), bl_input(g, "b", BL_F32, BL_SCALAR)};

    bl_tensor residual = bl_sub(bl_add(bl_mul(p[0], x), p[1]), y);
    bl_tensor loss = bl_mean(bl_mul(residual, residual));
    bl_tensor slope[2];
    bl_grad(loss, p, 2, slope);

    bl_tensor in[] = {x, y, p[0], p[1]};
    bl_tensor out[] = {loss, bl_sub(p[0], bl_mul(0.3, slope[0])),
                       bl_sub(p[1], bl_mul(0.3, slope[1]))};
    bl_compile_options options = {.donation = (bl_donation[]){{2, 1}, {3, 2}}, .donations = 2};
    bl_program *step = NULL;
    TRY(bl_compile(bl_device_cpu(), in, 4, out, 3, &options, &step));
    bl_graph_free(g);

    float xs[N], ys[N], w = 0, b = 0, error = 0;
    bl_random random = bl_random_new(bl_key_from_seed(1));
    for (int i = 0; i < N; i++) {
        xs[i] = (float)bl_random_gauss(&random);
        ys[i] = 2 * xs[i] - 1 + 0.1F * (float)bl_random_gauss(&random);
    }
    bl_type vector = {BL_F32, BL_SHAPE(N)}, scalar = {BL_F32, BL_SCALAR};
    bl_array inputs[] = {{vector, xs}, {vector, ys}, {scalar, &w}, {scalar, &b}};
    bl_array outputs[] = {{scalar, &error}, {scalar, &w}, {scalar, &b}};
    for (int i = 0; i < 100; i++)
        TRY(bl_run(step, inputs, outputs));
    printf("y = %.3f x %+.3f, mean squared error %.4f\n", (double)w, (double)b, (double)error);
    bl_program_free(step);
    return 0;
}
