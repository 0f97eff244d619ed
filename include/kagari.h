/* Kagari: open a language model file, run it, and prove its numbers.
 *
 * This is the only public header. C17, usable from C++. Every function that can fail returns a
 * kg_status; kg_error_message() then says in one line what was wrong, with file, key or tensor.
 * The library never exits, aborts or prints.
 *
 * Ownership: an object made by kg_x_open/new is released by kg_x_close/free, which takes the address
 * of the pointer, accepts NULL and stores NULL. Pointers that a getter returns live as long as the object.
 * Threads: a kg_model or kg_tokenizer may be used by many threads at once; a kg_session by one at a time. */
#ifndef KAGARI_H
#define KAGARI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KG_API __attribute__((visibility("default")))
#else
#define KG_API
#endif

#define KG_VERSION "0.1.0"

typedef enum kg_status {
    KG_OK = 0,
    KG_ERR_IO = -1,          /* the operating system refused: open, map, read, write */
    KG_ERR_FORMAT = -2,      /* the file is damaged or not what it claims to be */
    KG_ERR_UNSUPPORTED = -3, /* well-formed, but this build cannot do it; the message names what */
    KG_ERR_ARGUMENT = -4,    /* the caller's argument is out of range */
    KG_ERR_MEMORY = -5,
    KG_ERR_DEVICE = -6,  /* a device failed while running */
    KG_ERR_CONTEXT = -7, /* the context is full */
    KG_ERR_ABORTED = -8, /* a callback asked to stop */
} kg_status;

/* The message of the last failure on the calling thread; "" before the first one. Never NULL. */
KG_API const char *kg_error_message(void);
KG_API const char *kg_version(void);

/* ---- files: what is in a model file, without running it --------------------------------------- */

typedef struct kg_file kg_file;

/* A tensor of a file. dims[0] is the contiguous dimension: a weight that maps `in` to `out` features is
 * dims = {in, out}, stored as `out` rows of `in` elements. */
typedef struct kg_tensor_info {
    const char *name;
    const char *type;   /* "F32", "Q4_K", ... */
    int n_dims;         /* 1..4 */
    int64_t dims[4];    /* unused ones are 1 */
    uint64_t offset;    /* bytes from the start of the file (of several: of the one that it is in) */
    uint64_t n_bytes;
} kg_tensor_info;

KG_API kg_status kg_file_open(kg_file **out, const char *path);
KG_API void kg_file_close(kg_file **file);
KG_API const char *kg_file_format(const kg_file *file); /* "GGUF v3" */
KG_API uint64_t kg_file_size(const kg_file *file);      /* bytes */
KG_API size_t kg_file_n_tensors(const kg_file *file);
KG_API kg_status kg_file_tensor(const kg_file *file, size_t i, kg_tensor_info *out);
KG_API size_t kg_file_n_keys(const kg_file *file);
KG_API const char *kg_file_key(const kg_file *file, size_t i);      /* NULL if i is out of range */
KG_API const char *kg_file_key_type(const kg_file *file, size_t i); /* "u32", "str", "arr[str]", ... */
/* Writes the value as JSON text into buf (NUL-terminated, at most size bytes; arrays longer than max_items
 * (0: no limit) end in "...": then the text is for people, not a parser). Returns the length of the whole text, as snprintf does. */
KG_API size_t kg_file_value(const kg_file *file, size_t i, size_t max_items, char *buf, size_t size);

/* ---- tokenizer --------------------------------------------------------------------------------- */

typedef struct kg_tokenizer kg_tokenizer;

/* Reads only the vocabulary of a model file or folder, or of a tokenizer.json or tokenizer.model. */
KG_API kg_status kg_tokenizer_open(kg_tokenizer **out, const char *path);
KG_API void kg_tokenizer_close(kg_tokenizer **tok);

enum {
    KG_TOKENIZE_BOS = 1,     /* add BOS/EOS where the file asks for them */
    KG_TOKENIZE_SPECIAL = 2, /* parse control tokens ("<|eot_id|>") in the text instead of reading them as plain text */
};
/* text: UTF-8, text_len bytes; bytes that are not UTF-8 are kept as byte tokens where the vocabulary can, else replaced by U+FFFD.
 * *ids receives a malloc'ed array of *n ids: free it with kg_free. */
KG_API kg_status kg_tokenize(const kg_tokenizer *tok, const char *text, size_t text_len, unsigned flags, int32_t **ids, size_t *n);
/* The bytes that a token stands for, not NUL-terminated, maybe not whole UTF-8: valid as long as tok. Control tokens give
 * length 0 unless `special` is set. Returns the length; 0 for ids out of range. */
KG_API size_t kg_token_bytes(const kg_tokenizer *tok, int32_t id, bool special, const char **bytes);
/* Text of n ids, malloc'ed, NUL-terminated, *len bytes: free with kg_free. Undoes the space prefix of SentencePiece vocabularies. */
KG_API kg_status kg_detokenize(const kg_tokenizer *tok, const int32_t *ids, size_t n, bool special, char **text, size_t *len);
KG_API const char *kg_token_text(const kg_tokenizer *tok, int32_t id); /* as stored in the file; NULL if out of range */
KG_API int32_t kg_tokenizer_n_vocab(const kg_tokenizer *tok);
KG_API int32_t kg_tokenizer_bos(const kg_tokenizer *tok); /* -1: none */
KG_API int32_t kg_tokenizer_eos(const kg_tokenizer *tok);
KG_API bool kg_token_is_end(const kg_tokenizer *tok, int32_t id); /* EOS, EOT and other ends of generation */
KG_API void kg_free(void *p);

/* ---- chat: a conversation as the text that a model was trained on ------------------------------- */

/* A Jinja template, parsed; as jinja2 renders it with the settings of transformers. It may be used by many threads at once. */
typedef struct kg_chat_template kg_chat_template;

/* The template that came with the model file: name NULL is the usual one, others are those that kg_chat_template_name lists (for
 * example "tool_use"). KG_OK with *out NULL if the file has no such template. Errors name the line of the template. */
KG_API kg_status kg_chat_template_open(kg_chat_template **out, const kg_tokenizer *tok, const char *name);
/* A template from its source, len bytes. tok gives the texts of the begin and end tokens; NULL: they are empty. */
KG_API kg_status kg_chat_template_new(kg_chat_template **out, const char *source, size_t len, const kg_tokenizer *tok);
KG_API void kg_chat_template_free(kg_chat_template **t);
/* Named templates of the file, i = 0..; NULL at the end. The usual one has no name. */
KG_API const char *kg_chat_template_name(const kg_tokenizer *tok, size_t i);
KG_API const char *kg_chat_template_source(const kg_chat_template *t);

/* One message. Texts are UTF-8; those that are NULL are left out of the message, except content, which is none then. */
typedef struct kg_chat_message {
    const char *role; /* "system", "user", "assistant", "tool" ... */
    const char *content;
    const char *reasoning;    /* of an answer, apart from its content: reasoning_content */
    const char *tool_calls;   /* of an answer: a JSON array of {"type": "function", "id": ..., "function": {"name": ..., "arguments": ...}} */
    const char *tool_call_id; /* of a tool's result */
    const char *name;
} kg_chat_message;

typedef struct kg_chat_params {
    const kg_chat_message *messages; /* [n_messages] */
    size_t n_messages;
    const char *messages_json;  /* instead of them: a JSON array of messages, handed to the template as it is */
    const char *tools_json;     /* a JSON array; NULL: none */
    const char *documents_json; /* a JSON array; NULL: none */
    const char *variables_json; /* a JSON object of further variables, e.g. {"enable_thinking": false}; those above, if given, win. NULL: none */
    bool add_generation_prompt; /* end with the beginning of an answer */
    int64_t now;                /* what the template takes for the current time, seconds since 1970; 0: the clock. Local time is written */
} kg_chat_params;

/* Renders the conversation. *text is malloc'ed, NUL-terminated, *len (may be NULL) bytes: free it with kg_free. It is the whole text, with
 * the begin token if the template writes it: tokenize it with KG_TOKENIZE_SPECIAL, without KG_TOKENIZE_BOS. Templates are not trusted: time,
 * memory and output are bounded. KG_ERR_ARGUMENT: the template refuses the conversation, or some JSON is not JSON; KG_ERR_FORMAT: the
 * template fails; KG_ERR_UNSUPPORTED: it uses what this engine does not have, or too much time or memory. */
KG_API kg_status kg_chat_render(const kg_chat_template *t, const kg_chat_params *params, char **text, size_t *len);

/* The parts of an answer. Which marks begin and end them: src/text/answer.def. */
typedef enum kg_part { KG_PART_TEXT, KG_PART_REASONING, KG_PART_TOOL_CALL } kg_part;
/* A piece of a part, without the marks; a section that follows another of the same part begins with `first`. Return false to stop. */
typedef bool (*kg_part_fn)(void *ctx, kg_part part, bool first, const char *text, size_t len);

/* Cuts an answer into its parts while it arrives; what may be the beginning of a mark is held back until that is clear. White space
 * between parts is dropped. Marks that are control tokens of the model are only seen if generation writes these (kg_generate_params.special). */
typedef struct kg_answer kg_answer;
/* prompt (may be NULL): the text before the answer; if it ends in a reasoning section's begin mark, the answer starts inside of it. */
KG_API kg_status kg_answer_new(kg_answer **out, const char *prompt, size_t prompt_len);
KG_API void kg_answer_free(kg_answer **answer);
/* More of the answer; end: there will be no more. fn may be NULL. KG_ERR_ABORTED if fn returned false. */
KG_API kg_status kg_answer_push(kg_answer *answer, const char *text, size_t len, bool end, kg_part_fn fn, void *ctx);
/* All of a part so far, *len bytes, NUL-terminated, valid until the next push; sections of the same part are separated by a line end. */
KG_API const char *kg_answer_part(const kg_answer *answer, kg_part part, size_t *len);
/* Tool calls so far, as a JSON array of {"type": "function", "function": {"name": ..., "arguments": {...}}}; malloc'ed, free with kg_free. A call
 * whose form is not understood is {"type": "unknown", "text": ...}. */
KG_API kg_status kg_answer_tool_calls(const kg_answer *answer, char **json);

/* ---- model ------------------------------------------------------------------------------------- */

typedef struct kg_model kg_model;

typedef enum kg_kv_type { KG_KV_F16, KG_KV_F32, KG_KV_Q8_0 } kg_kv_type;
/* What weights are multiplied with. KG_ACT_INT8 (fast): quantized ones with activations rounded to int8 per block; where the processor multiplies
 * bf16 faster than f32, BF16 with activations rounded to that, and F16 with a matrix unit, with activations of 16 bits. KG_ACT_F32: exact activations. */
typedef enum kg_activations { KG_ACT_INT8, KG_ACT_F32 } kg_activations;

/* A low-rank adapter: a GGUF file whose general.type is "adapter", or a folder with adapter_config.json and adapter_model.safetensors. */
typedef struct kg_lora {
    const char *path;
    double strength; /* that sessions begin with, see kg_session_set_loras; 1: as it was trained */
} kg_lora;

typedef struct kg_model_params {
    const char *backend;  /* "cpu" (default), "reference" */
    int n_threads;        /* 0: one per processor that the process may use */
    kg_kv_type kv_type;
    kg_activations activations;
    bool deterministic;   /* GPUs: a token's results have the same bits however the prompt is cut and whatever runs beside it, which costs
                           * speed. The cpu and reference backends always keep this. */
    int gpu_layers;       /* of the hybrid backends: layers on the device; -1 (default): as many as fit */
    const char *tokenizer; /* path of a file whose vocabulary (kg_tokenizer_open) to use instead of the model's; NULL: the model's */
    const kg_lora *loras; /* [n_loras], at most 64: applied one on top of the other, beside the weights as they are; read while the model is opened */
    size_t n_loras;
    int64_t n_ctx;        /* the largest context of its sessions; 0: the trained one. Some models (longrope: Phi) rotate otherwise if it is longer than the
                           * context that they were first trained with, which bounds their sessions unless this is larger */
    /* Called now and then while weights are made ready, with bytes of the file done and to do; hybrid backends count twice from 0. NULL: none */
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *progress_ctx;
} kg_model_params;

KG_API kg_model_params kg_model_default_params(void);
KG_API kg_status kg_model_open(kg_model **out, const char *path, const kg_model_params *params); /* params NULL: defaults */
KG_API void kg_model_close(kg_model **model); /* after its sessions */
KG_API const kg_tokenizer *kg_model_tokenizer(const kg_model *model); /* NULL: the file has none */
KG_API const char *kg_model_arch(const kg_model *model);
KG_API const char *kg_model_backend(const kg_model *model);
KG_API int32_t kg_model_n_vocab(const kg_model *model);
KG_API int32_t kg_model_n_layers(const kg_model *model);
KG_API size_t kg_model_n_loras(const kg_model *model);
KG_API const char *kg_model_lora(const kg_model *model, size_t i); /* path of an adapter, in the order of the parameters; NULL past the end */
KG_API int64_t kg_model_n_ctx(const kg_model *model); /* positions that the model was trained for */

/* Backends of this build, i = 0..; NULL at the end. *what (may be NULL) receives one line about it. */
KG_API const char *kg_backend_name(size_t i, const char **what);

/* Something that a backend can compute on. */
typedef struct kg_device {
    char name[128], driver[96];
    uint64_t memory, memory_free; /* bytes; 0: unknown */
    bool is_gpu;
    bool usable;
    bool chosen;   /* the one that this backend takes */
    char why[320]; /* why it is not usable */
} kg_device;
/* At most `most` devices of a backend, *n of them; 0 for those that run on the processor. KG_ERR_DEVICE and why if there is none. */
KG_API kg_status kg_devices(const char *backend, kg_device *out, size_t most, size_t *n);
/* Runs the self-check of the device that a backend takes, again: KG_ERR_DEVICE and which operation it computes wrong. */
KG_API kg_status kg_device_check(const char *backend);
/* The backend for this machine: that of a GPU that can be used, else "cpu". why receives one line about what was found, "" if there
 * was no GPU to choose. */
KG_API const char *kg_backend_best(char *why, size_t size);

/* ---- session: one timeline of tokens, its KV cache and its logits ------------------------------- */

typedef struct kg_session kg_session;

typedef struct kg_session_params {
    int64_t n_ctx; /* most tokens it may hold; 0: what the model was trained for */
    int n_batch;   /* prompt tokens per step, 1..512; 0: 512. Never changes a result on the cpu backend, only speed and memory */
} kg_session_params;

typedef struct kg_session_stats {
    size_t n_tokens;   /* tokens in the cache now */
    size_t n_reused;   /* of the last sync: taken from the cache, its own or another session's of the model ... */
    size_t n_computed; /* ... and computed */
    size_t kv_bytes;
    size_t kv_token_bytes; /* what one token takes in the cache: an attention over n tokens reads n times as much */
} kg_session_stats;

KG_API kg_session_params kg_session_default_params(void);
KG_API kg_status kg_session_new(kg_session **out, kg_model *model, const kg_session_params *params);
KG_API void kg_session_free(kg_session **session);
/* Makes the session hold exactly tokens[0..n), n >= 1: keeps the cache of the longest common prefix, drops the rest, computes what is new.
 * Afterwards the logits are those after tokens[n-1]. On failure the session keeps what was computed so far and stays usable. */
KG_API kg_status kg_session_sync(kg_session *session, const int32_t *tokens, size_t n);
/* How strong each adapter of the model is in this session: strengths[kg_model_n_loras]; 0: not at all, at no cost. The weights are shared by
 * sessions with other adapters. A change lets go of all tokens: the next sync computes them anew, or finds them in a session with the same strengths. */
KG_API kg_status kg_session_set_loras(kg_session *session, const double *strengths, size_t n);
KG_API const double *kg_session_loras(const kg_session *session);
/* Called between prompt steps with tokens done and to do; return false to stop (KG_ERR_ABORTED). NULL: none. */
KG_API void kg_session_set_progress(kg_session *session, bool (*fn)(void *ctx, size_t done, size_t total), void *ctx);
/* n_vocab logits of the last sync; NULL before the first, after one that failed and after a kg_generate for which the device found the highest itself (a sync
 * to the same tokens brings them). */
KG_API const float *kg_session_logits(const kg_session *session);
/* The same in float64: only the reference backend has them, others return NULL. */
KG_API const double *kg_session_logits_f64(const kg_session *session);
KG_API kg_session_stats kg_session_get_stats(const kg_session *session);
/* Tokens and cache in a file, for a later session of the same model, backend, kv_type and activations: anything else, a damaged file too, is refused
 * (KG_ERR_FORMAT, KG_ERR_ARGUMENT) and leaves the session as it was. The file appears or is replaced when it is complete. After load a
 * sync to a text that begins with the same tokens computes only what follows. Not with adapters, nor with
 * the hybrid backends: KG_ERR_UNSUPPORTED. */
KG_API kg_status kg_session_save(kg_session *session, const char *path);
KG_API kg_status kg_session_load(kg_session *session, const char *path);

/* ---- sampling and generation --------------------------------------------------------------------- */

typedef struct kg_sampler_params {
    float temperature; /* 0: greedy */
    int top_k;         /* 0: off */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    float repeat_penalty;    /* 1: off; divides positive and multiplies negative logits of tokens seen (Keskar et al. 2019) */
    float presence_penalty;  /* 0: off; subtracted once from the logit of every token seen */
    float frequency_penalty; /* 0: off; subtracted per occurrence */
    int penalty_last_n;      /* the penalties look at this many last tokens; -1: all */
    uint64_t seed;
} kg_sampler_params;

KG_API kg_sampler_params kg_sampler_default_params(void);
KG_API kg_status kg_sampler_check(const kg_sampler_params *params); /* KG_ERR_ARGUMENT names the value out of range */
/* Picks the next token. The steps, in this order: repeat penalty, presence and frequency penalties; at temperature 0 the highest logit
 * (the lowest id among equals); else top-k, softmax of logit / temperature, top-p (the fewest tokens whose probabilities add up to
 * top_p), min-p (at least min_p of the highest probability), and a draw in proportion to what is left.
 * A pure function of its arguments. history: the n_history tokens before it (for the penalties); the random
 * number is drawn from (seed, n_history). Logits that are NaN or infinite never win; if none is finite: KG_ERR_DEVICE. */
KG_API kg_status kg_sample(const float *logits, int32_t n_vocab, const kg_sampler_params *params, const int32_t *history,
                           size_t n_history, int32_t *token);

typedef struct kg_generate_params {
    size_t max_tokens;
    bool ignore_end; /* go on after EOS/EOT */
    bool special;    /* write control tokens as their text too, except the end token */
    const char *const *stop; /* n_stop strings; the text ends before the first that appears */
    size_t n_stop;
    kg_sampler_params sampler;
} kg_generate_params;

typedef enum kg_finish { KG_FINISH_LENGTH, KG_FINISH_END, KG_FINISH_STOP_STRING, KG_FINISH_CONTEXT } kg_finish;

/* One piece of the answer: `text` is whole UTF-8 (an incomplete character is held back until it is complete,
 * and so is what may be the start of a stop string), len may be 0; `token` is the id just produced, with END that of the end token
 * (without text), -1 for the last flush. Return false to stop: kg_generate then returns KG_ERR_ABORTED, the session stays usable. */
typedef bool (*kg_text_fn)(void *ctx, int32_t token, const char *text, size_t len);

/* Syncs the session to tokens[0..n), then generates. *finish (may be NULL) says why it ended. The last token produced is not in the
 * session: a later sync to the longer text computes it.
 * The model must have a tokenizer unless fn is NULL or only looks at token ids. */
KG_API kg_status kg_generate(kg_session *session, const int32_t *tokens, size_t n, const kg_generate_params *params, kg_text_fn fn,
                             void *ctx, kg_finish *finish);

/* ---- proof ----------------------------------------------------------------------------------------- */

/* Error of a backend against the float64 reference: ||a - r|| / ||r|| (Euclidean) over all given tokens. */
typedef struct kg_verify_report {
    int n_layers;
    double *layer_error; /* [n_layers]: the residual stream after each layer */
    double logits_error; /* over the logits of every token */
    double logits_bound; /* what the arithmetic of this backend, its KV type and the file's tensor types explain, errors of all stages taken as
                            independent: trained models stay well below it, a badly conditioned one can exceed it */
    double worst_logit;  /* largest absolute difference of one logit */
    double same_top;     /* share of tokens whose most likely next token agrees, 0..1 */
    size_t n_tokens;
    /* An encoder gets its tokens at once and has no logits: logits_error and logits_bound, worst_logit are about the states, same_top about nothing. */
    bool is_encoder;
    double embedding_error; /* of what the file makes of the states, of length 1 */
    double embedding_bound; /* what the states' bound explains of it */
} kg_verify_report;

/* Opens path twice (params->backend and "reference") and runs tokens[0..n) through both. */
KG_API kg_status kg_verify(const char *path, const kg_model_params *params, const int32_t *tokens, size_t n, kg_verify_report *out);
KG_API void kg_verify_report_free(kg_verify_report *report);

/* Error of one operation of the model. a_i is what the backend computes as output of operation i, all tokens together, r_i what the
 * reference computes, f_i(x) the output of operation i in float64, with the weights of the base file, for the inputs x. */
typedef struct kg_op_error {
    int layer;       /* -1: outside the layers */
    const char *op;  /* "matmul", "attention", ... */
    char tensor[64]; /* its weights ... */
    char type[16];   /* ... and their type in the file that is verified; "": it has none */
    /* ||a_i - f_i(a)|| / ||f_i(a)||: what this operation adds, its inputs being those that the backend gave it. NaN: the backend joins the
     * operation with a later one, whose error includes it. */
    double own;
    double total; /* ||a_i - r_i|| / ||r_i||: with everything that came before; NaN likewise */
} kg_op_error;

typedef struct kg_ops_report {
    size_t n_ops;
    kg_op_error *ops; /* [n_ops], in the order in which they are computed */
    kg_verify_report whole; /* with a base, logits_bound is NaN: nothing bounds what other weights do */
} kg_ops_report;

/* kg_verify, operation by operation. base: a file of the same model with better weights, for the reference to use; NULL: path. It takes
 * longer and, for 8 tokens at a time, 12 bytes for each number that the model computes. progress (may be NULL): tokens done and to do;
 * false stops (KG_ERR_ABORTED). */
KG_API kg_status kg_verify_ops(const char *path, const char *base, const kg_model_params *params, const int32_t *tokens, size_t n,
                               bool (*progress)(void *ctx, size_t done, size_t total), void *ctx, kg_ops_report *out);
KG_API void kg_ops_report_free(kg_ops_report *report);

/* ---- conversion ----------------------------------------------------------------------------------------- */

/* Writes a GGUF of a Hugging Face folder (or any other model file): tensor names, keys and order of rows as llama.cpp's conversion has them.
 * type: "f32", "f16", "bf16" of the matrices; "auto" or NULL: as they are. The file appears when it is complete. */
KG_API kg_status kg_convert(const char *in, const char *out, const char *type);

/* The same of an adapter as peft writes it (LoRA). base: a model that it changes, folder or GGUF, whose names and order of rows it has. Where GGUF's one
 * alpha cannot say how strong a pair is (rank-stabilized scales, patterns), its B is multiplied, in F32. */
KG_API kg_status kg_convert_adapter(const char *in, const char *base, const char *out, const char *type);

/* How well a model predicts a text: means over the tokens that count, each with the standard error of the mean (tokens taken as independent). */
typedef struct kg_perplexity_report {
    size_t n_tokens;               /* that count */
    double nll, nll_error;         /* -log of the probability given to the token that came, natural logarithm */
    double perplexity, perplexity_error; /* exp(nll) */
    double kl, kl_error;           /* Kullback-Leibler divergence from base's prediction to model's, natural logarithm; 0 without base */
    double same_top;               /* share of tokens for which both find the same next token most likely, 0..1 */
} kg_perplexity_report;

/* Windows of n_ctx tokens (at least 4), one after the other without overlap, the cache emptied in between; what is left at the end is
 * not used. In each window, positions n_ctx / 2 to n_ctx - 2 count, each for its prediction of the token after it: n_ctx - n_ctx / 2 - 1 of them.
 * If tokens[0] is BOS, the first token of every window is replaced by it. base may be NULL, must have the same vocabulary size else.
 * progress (may be NULL): after each window, with windows done and to do; false stops (KG_ERR_ABORTED). */
KG_API kg_status kg_perplexity(kg_model *model, kg_model *base, const int32_t *tokens, size_t n, size_t n_ctx,
                               bool (*progress)(void *ctx, size_t done, size_t total), void *ctx, kg_perplexity_report *out);

/* ---- limits ------------------------------------------------------------------------------------------ */

/* What the machine does at most, measured with loops that only read or only multiply, in the instructions that the backend uses; of a device, with copies
 * and matrix products. 0: not measured for this backend. */
typedef struct kg_limits {
    double read_gb_s;   /* 1e9 bytes per second, from memory */
    double int8_tops;   /* 1e12 operations per second, a multiply-add counts as two */
    double int8_vector_tops; /* the same by vector instructions, where int8_tops is what a matrix unit does */
    double f32_tflops;  /* the same */
    double bf16_tflops; /* bf16 products summed up in f32 */
    double copy_gb_s;   /* of a device: bytes read and bytes written by a copy within its memory */
    double f16_tflops;  /* of a device: a large product of matrices of halves, summed up in f32 */
    const char *with;   /* the instructions, or what multiplies */
} kg_limits;

/* A meter owns its threads and up to 1 GiB of memory to read (3 GiB of a device's), and lives apart from models: a machine that is shared changes from
 * one moment to the next, so that speeds are best compared with limits measured just before and after. */
typedef struct kg_meter kg_meter;
KG_API kg_status kg_meter_open(kg_meter **out, const char *backend, int n_threads); /* 0: one per processor; KG_ERR_UNSUPPORTED: this backend has none */
KG_API void kg_meter_close(kg_meter **meter);
KG_API kg_status kg_meter_run(kg_meter *meter, double seconds, kg_limits *out); /* takes about so long, above 0 and up to 60; one thread at a time */

/* ---- making files --------------------------------------------------------------------------------------- */

typedef struct kg_quantize_step {
    size_t i, n;        /* tensor i of n is done */
    const char *tensor, *from, *to; /* its name and types */
    double error;       /* ||quantized - original|| / ||original||; 0 where the type stays */
    uint64_t n_bytes;   /* it takes now */
    double done;        /* share of the file's bytes, 0..1 */
} kg_quantize_step;

typedef struct kg_quantize_params {
    const char *type;           /* a mixture, "Q4_K_M": see kg_quantize_type */
    const char *imatrix;        /* file with the importance of columns; NULL: all alike */
    const char *output_type;    /* tensor type of output.weight, of token_embd.weight; NULL: as the mixture says */
    const char *embedding_type;
    const char *const *tensor_types; /* [n_tensor_types]: "PATTERN=TYPE": tensors that are quantized and whose names the regular expression fits get
                                      * this type; of several the last, but output_type and embedding_type go before */
    size_t n_tensor_types;
    bool pure;                  /* the mixture's main type for all that is quantized */
    bool allow_requantize;      /* of tensors that are quantized already */
    int n_threads;              /* 0: one per processor; changes speed, not the file */
    bool (*progress)(void *ctx, const kg_quantize_step *step); /* after each tensor; false: stop (KG_ERR_ABORTED). NULL: none */
    void *progress_ctx;
} kg_quantize_params;

typedef struct kg_quantize_report {
    uint64_t bytes_before, bytes_after; /* of all tensors */
    size_t n_weighted;                  /* tensors that the importance matrix knew */
} kg_quantize_report;

/* Writes a GGUF file with the tensors of `in` in other types. `out` appears, or is replaced, only when it is complete. report may be NULL. */
KG_API kg_status kg_quantize(const char *in, const char *out, const kg_quantize_params *params, kg_quantize_report *report);
KG_API const char *kg_quantize_type(size_t i); /* names of the mixtures; NULL at the end */

typedef struct kg_imatrix_params {
    int chunk;           /* tokens that are run together; 0: 512 */
    int32_t first;       /* put in place of the first token of each chunk (BOS); -1: none */
    const char *dataset; /* noted in the file; may be NULL */
    bool (*progress)(void *ctx, size_t done, size_t total); /* false: stop (KG_ERR_ABORTED). NULL: none */
    void *progress_ctx;
} kg_imatrix_params;

/* Runs tokens[0..n) in chunks and writes how large the inputs of each matrix column are: what kg_quantize takes as imatrix, and
 * llama.cpp too. */
KG_API kg_status kg_imatrix(const char *path, const kg_model_params *model, const int32_t *tokens, size_t n, const kg_imatrix_params *params,
                            const char *out);

/* ---- embeddings ------------------------------------------------------------------------------------------ */

typedef enum kg_pooling { KG_POOLING_FILE, KG_POOLING_MEAN, KG_POOLING_CLS, KG_POOLING_LAST } kg_pooling; /* FILE: as it says, else the mean */

KG_API int32_t kg_model_dim(const kg_model *model);
/* Numbers of an embedding: kg_model_dim, unless the file has linear layers behind the pooling. */
KG_API int32_t kg_model_embedding_dim(const kg_model *model);
/* The state after the final norm, pooled over the tokens, behind the file's linear layers: out[kg_model_embedding_dim], of length 1. */
KG_API kg_status kg_embed(kg_model *model, const int32_t *tokens, size_t n, kg_pooling pooling, float *out);

typedef struct kg_split_params {
    uint64_t max_bytes;   /* of tensors in one file (but always at least one tensor); 0: no limit */
    uint64_t max_tensors; /* in one file; 0: no limit */
} kg_split_params;

/* Cuts a GGUF file into prefix-00001-of-0000N.gguf and so on; *n_files may be NULL. */
KG_API kg_status kg_split(const char *in, const char *prefix, const kg_split_params *params, size_t *n_files);
/* The reverse: first is the path of the first of them. */
KG_API kg_status kg_merge(const char *first, const char *out);

#ifdef __cplusplus
}
#endif
#endif
