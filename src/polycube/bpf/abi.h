/* SPDX-License-Identifier: Apache-2.0
 * What the project uses of libbpf, in the layout of libbpf 1.1 (later versions accept shorter option structs). Input of build.py. */
struct bpf_object; struct bpf_program; struct bpf_map; struct ring_buffer; struct btf;
struct btf_type { uint32_t name_off; uint32_t info; uint32_t size; };

struct bpf_object_open_opts {
	size_t sz; const char *object_name; bool relaxed_maps; const char *pin_root_path; uint32_t attach_prog_fd;
	const char *kconfig; const char *btf_custom_path; char *kernel_log_buf; size_t kernel_log_size; uint32_t kernel_log_level;
};
struct bpf_map_create_opts {
	size_t sz; uint32_t btf_fd; uint32_t btf_key_type_id; uint32_t btf_value_type_id; uint32_t btf_vmlinux_value_type_id;
	uint32_t inner_map_fd; uint32_t map_flags; uint64_t map_extra; uint32_t numa_node; uint32_t map_ifindex;
};
struct bpf_map_batch_opts { size_t sz; uint64_t elem_flags; uint64_t flags; };
struct bpf_test_run_opts {
	size_t sz; const void *data_in; void *data_out; uint32_t data_size_in; uint32_t data_size_out; const void *ctx_in; void *ctx_out;
	uint32_t ctx_size_in; uint32_t ctx_size_out; uint32_t retval; int repeat; uint32_t duration; uint32_t flags; uint32_t cpu;
	uint32_t batch_size;
};
struct bpf_link_create_opts { size_t sz; uint32_t flags; void *iter_info; uint32_t iter_info_len; uint32_t target_btf_id; uint64_t words[3]; };
struct bpf_link_update_opts { size_t sz; uint32_t flags; uint32_t old_prog_fd; };
struct bpf_tc_hook { size_t sz; int ifindex; int attach_point; uint32_t parent; };
struct bpf_tc_opts { size_t sz; int prog_fd; uint32_t flags; uint32_t prog_id; uint32_t handle; uint32_t priority; };
struct bpf_xdp_query_opts { size_t sz; uint32_t prog_id; uint32_t drv_prog_id; uint32_t hw_prog_id; uint32_t skb_prog_id; uint8_t attach_mode; };

struct bpf_object *bpf_object__open_mem(const void *buf, size_t size, const struct bpf_object_open_opts *opts);
int bpf_object__load(struct bpf_object *o);
void bpf_object__close(struct bpf_object *o);
struct btf *bpf_object__btf(const struct bpf_object *o);
struct bpf_program *bpf_object__next_program(const struct bpf_object *o, struct bpf_program *p);
struct bpf_map *bpf_object__next_map(const struct bpf_object *o, const struct bpf_map *m);
const char *bpf_program__name(const struct bpf_program *p);
const char *bpf_program__section_name(const struct bpf_program *p);
int bpf_program__fd(const struct bpf_program *p);
size_t bpf_program__insn_cnt(const struct bpf_program *p);
int bpf_program__type(const struct bpf_program *p);
int bpf_program__set_autoload(struct bpf_program *p, bool autoload);
bool bpf_program__autoload(const struct bpf_program *p);
int bpf_program__set_expected_attach_type(struct bpf_program *p, int type);
int bpf_program__expected_attach_type(const struct bpf_program *p);
int bpf_program__set_log_level(struct bpf_program *p, uint32_t level);
int bpf_program__set_log_buf(struct bpf_program *p, char *buf, size_t size);

const char *bpf_map__name(const struct bpf_map *m);
int bpf_map__fd(const struct bpf_map *m);
int bpf_map__type(const struct bpf_map *m);
uint32_t bpf_map__key_size(const struct bpf_map *m);
uint32_t bpf_map__value_size(const struct bpf_map *m);
uint32_t bpf_map__max_entries(const struct bpf_map *m);
uint32_t bpf_map__map_flags(const struct bpf_map *m);
uint32_t bpf_map__btf_key_type_id(const struct bpf_map *m);
uint32_t bpf_map__btf_value_type_id(const struct bpf_map *m);
bool bpf_map__is_internal(const struct bpf_map *m);
int bpf_map__set_max_entries(struct bpf_map *m, uint32_t n);
bool bpf_map__autocreate(const struct bpf_map *m);
int bpf_map__set_autocreate(struct bpf_map *m, bool autocreate);
int bpf_map__set_initial_value(struct bpf_map *m, const void *data, size_t size);
const void *bpf_map__initial_value(struct bpf_map *m, size_t *size);
int bpf_map__reuse_fd(struct bpf_map *m, int fd);
int bpf_map__set_inner_map_fd(struct bpf_map *m, int fd);
struct bpf_map *bpf_map__inner_map(struct bpf_map *m);

int bpf_map_create(int type, const char *name, uint32_t key_size, uint32_t value_size, uint32_t max_entries, const struct bpf_map_create_opts *opts);
int bpf_map_lookup_elem(int fd, const void *k, void *v);
int bpf_map_update_elem(int fd, const void *k, const void *v, uint64_t flags);
int bpf_map_delete_elem(int fd, const void *k);
int bpf_map_lookup_and_delete_elem(int fd, const void *k, void *v);
int bpf_map_get_next_key(int fd, const void *k, void *n);
int bpf_map_lookup_batch(int fd, void *in, void *out, void *ks, void *vs, uint32_t *count, const struct bpf_map_batch_opts *opts);
int bpf_map_lookup_and_delete_batch(int fd, void *in, void *out, void *ks, void *vs, uint32_t *count, const struct bpf_map_batch_opts *opts);
int bpf_map_update_batch(int fd, const void *ks, const void *vs, uint32_t *count, const struct bpf_map_batch_opts *opts);
int bpf_map_delete_batch(int fd, const void *ks, uint32_t *count, const struct bpf_map_batch_opts *opts);
int bpf_map_get_fd_by_id(uint32_t id);
int bpf_prog_get_fd_by_id(uint32_t id);
int bpf_link_get_fd_by_id(uint32_t id);
int bpf_prog_get_next_id(uint32_t start, uint32_t *next);
int bpf_obj_get_info_by_fd(int fd, void *info, uint32_t *len);
int bpf_obj_get(const char *path);
int bpf_obj_pin(int fd, const char *path);
int bpf_prog_load(int type, const char *name, const char *license, const void *insns, size_t count, void *opts);
int bpf_prog_test_run_opts(int fd, struct bpf_test_run_opts *o);
int bpf_link_create(int prog_fd, int target, int type, const struct bpf_link_create_opts *opts);
int bpf_link_update(int link_fd, int new_prog_fd, const struct bpf_link_update_opts *opts);
int bpf_link_detach(int link_fd);
int bpf_xdp_query(int ifindex, int flags, struct bpf_xdp_query_opts *opts);
int bpf_tc_hook_create(struct bpf_tc_hook *hook);
int bpf_tc_hook_destroy(struct bpf_tc_hook *hook);
int bpf_tc_attach(const struct bpf_tc_hook *hook, struct bpf_tc_opts *opts);
int bpf_tc_detach(const struct bpf_tc_hook *hook, const struct bpf_tc_opts *opts);
int bpf_tc_query(const struct bpf_tc_hook *hook, struct bpf_tc_opts *opts);
int bpf_enable_stats(int type);

struct ring_buffer *ring_buffer__new(int fd, int (*cb)(void *ctx, void *data, size_t n), void *ctx, const void *opts);
int ring_buffer__epoll_fd(const struct ring_buffer *r);
int ring_buffer__consume(struct ring_buffer *r);
void ring_buffer__free(struct ring_buffer *r);

struct btf *btf__load_from_kernel_by_id(uint32_t id);
void btf__free(struct btf *b);
uint32_t btf__type_cnt(const struct btf *b);
const struct btf_type *btf__type_by_id(const struct btf *b, uint32_t id);
const char *btf__name_by_offset(const struct btf *b, uint32_t off);
int btf__find_by_name_kind(const struct btf *b, const char *name, uint32_t kind);

int libbpf_num_possible_cpus(void);
const char *libbpf_version_string(void);
void *libbpf_set_print(int (*fn)(int level, const char *fmt, void *ap));
int libbpf_probe_bpf_map_type(int type, const void *opts);
int libbpf_probe_bpf_helper(int prog_type, int helper, const void *opts);
struct iovec {
    void *iov_base;
    size_t iov_len;
};
ssize_t writev(int fd, const struct iovec *parts, int count);
int vsnprintf(char *b, size_t n, const char *fmt, void *ap);
