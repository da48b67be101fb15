/* The threads of the cpu executor: see pool.h. */
#include "exec/cpu/pool.h"

#include <omp.h>
#include <pthread.h>

typedef struct worker {
    cpu_pool *pool;
    pthread_t thread;
    int number;
} worker;

struct cpu_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    cpu_part *part;
    void *context;
    int64_t parts, next, running; /* next: to be claimed; running: claimed by workers */
    bool closing;
    worker *worker;
    int workers;
};

/* Claims parts until there are none; the lock is held on entry and exit. */
static void do_parts(cpu_pool *pool, int thread)
{
    while (pool->next < pool->parts) {
        int64_t part = pool->next++;
        cpu_part *run = pool->part;
        void *context = pool->context;
        pool->running++;
        pthread_mutex_unlock(&pool->lock);
        run(context, part, thread);
        pthread_mutex_lock(&pool->lock);
        pool->running--;
    }
}

static void *serve(void *pointer)
{
    worker *w = pointer;
    cpu_pool *pool = w->pool;
    omp_set_num_threads(1); /* oneDNN's primitives run on the thread that calls them */
    pthread_mutex_lock(&pool->lock);
    while (!pool->closing) {
        do_parts(pool, w->number);
        if (pool->running == 0)
            pthread_cond_signal(&pool->done);
        if (!pool->closing && pool->next >= pool->parts)
            pthread_cond_wait(&pool->work, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

void cpu_pool_free(cpu_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->workers; i++)
        pthread_join(pool->worker[i].thread, NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    bl_release(pool->worker);
    bl_release(pool);
}

bl_status cpu_pool_new(int threads, cpu_pool **out)
{
    *out = NULL;
    if (threads <= 1)
        return BL_OK;
    cpu_pool *pool = bl_alloc(sizeof *pool);
    worker *workers = bl_alloc((size_t)threads * sizeof *workers);
    if (!pool || !workers) {
        bl_release(pool);
        bl_release(workers);
        return bl_no_memory((size_t)threads * sizeof *workers);
    }
    pool->worker = workers;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    for (int i = 0; i < threads - 1; i++) {
        workers[i] = (worker){.pool = pool, .number = i + 1};
        if (pthread_create(&workers[i].thread, NULL, serve, &workers[i]) != 0)
            break; /* with fewer threads the same parts get done */
        pool->workers++;
    }
    *out = pool;
    return BL_OK;
}

void cpu_pool_run(cpu_pool *pool, cpu_part *part, void *context, int64_t parts)
{
    if (!pool || parts <= 1) {
        for (int64_t p = 0; p < parts; p++)
            part(context, p, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->part = part;
    pool->context = context;
    pool->next = 0;
    pool->parts = parts;
    pthread_cond_broadcast(&pool->work);
    do_parts(pool, 0);
    while (pool->running > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
