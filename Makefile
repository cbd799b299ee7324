# make help tells the targets.  Every path can be overridden:
#   make CC=mpicc B=build HDF5_CFLAGS=... HDF5_LIBS=... BLAS_LIBS=... LAPACKE_LIBS=...
# CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS are the user's: given in any way, they are added to what the build needs.
# An out-of-tree build is `make B=/elsewhere`, or `make -f SRC/Makefile` in another folder.
SRC    := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
B      ?= build
PREFIX ?= /usr/local
CC     := $(if $(filter default,$(origin CC)),mpicc,$(CC))
PKG_CONFIG ?= pkg-config
OPT    ?= -O2 -g
ARCH   ?=
VERSION := $(shell cat $(SRC)/VERSION)
# where the Python programs find their packages
BREGMAN_VENV ?= $(abspath $(B))/venv
# where they find the table of the file formats
BREGMAN_SCHEMA := $(abspath $(B))/share/schema.json
export BREGMAN_VENV BREGMAN_SCHEMA

comma := ,
# First pkg-config module of a list that is known here, or nothing.
first_pkg = $(firstword $(foreach p,$(1),$(shell $(PKG_CONFIG) --exists $(p) 2>/dev/null && echo $(p))))
pkg_cflags = $(if $(1),$(shell $(PKG_CONFIG) --cflags $(1)))
pkg_libs   = $(if $(1),$(shell $(PKG_CONFIG) --libs $(1)))

HDF5_PKG    := $(call first_pkg,hdf5-serial hdf5)
BLAS_PKG    := $(call first_pkg,openblas scipy-openblas flexiblas mkl-dynamic-lp64-gomp blis cblas)
LAPACKE_PKG := $(call first_pkg,lapacke)
# optional: without it every eigendecomposition runs on one rank (make SCALAPACK_LIBS= leaves it out)
SCALAPACK_PKG := $(call first_pkg,$(if $(findstring Open MPI,$(shell $(CC) --showme:version 2>&1 || true)),scalapack-openmpi,scalapack-mpich) scalapack)
HDF5_CFLAGS    ?= $(call pkg_cflags,$(HDF5_PKG))
HDF5_LIBS      ?= -lhdf5_hl $(or $(call pkg_libs,$(HDF5_PKG)),-lhdf5)
BLAS_CFLAGS    ?= $(call pkg_cflags,$(BLAS_PKG))
# Debian's alternatives choose between flavours of OpenBLAS for the whole machine: the OpenMP flavour is linked by its folder,
# for LAPACKE and ScaLAPACK too (they find their BLAS by the program's RPATH, but not by a RUNPATH)
OPENBLAS_OPENMP := $(if $(filter openblas,$(BLAS_PKG)),$(wildcard /usr/lib/$(shell $(CC) -print-multiarch 2>/dev/null)/openblas-openmp))
BLAS_LIBS      ?= $(if $(OPENBLAS_OPENMP),-L$(OPENBLAS_OPENMP) -Wl$(comma)-rpath$(comma)$(OPENBLAS_OPENMP) -Wl$(comma)--disable-new-dtags) \
                  $(or $(call pkg_libs,$(BLAS_PKG)),-lopenblas)
LAPACKE_CFLAGS ?= $(call pkg_cflags,$(LAPACKE_PKG))
LAPACKE_LIBS   ?= $(or $(call pkg_libs,$(LAPACKE_PKG)),-llapacke)
SCALAPACK_LIBS ?= $(call pkg_libs,$(SCALAPACK_PKG))
SCALAPACK_CFLAGS ?= $(if $(strip $(SCALAPACK_LIBS)),-DBG_SCALAPACK='"$(strip ScaLAPACK $(if $(SCALAPACK_PKG),$(shell $(PKG_CONFIG) --modversion $(SCALAPACK_PKG))))"')
JANSSON_CFLAGS ?= $(call pkg_cflags,$(call first_pkg,jansson))
JANSSON_LIBS   ?= $(or $(call pkg_libs,$(call first_pkg,jansson)),-ljansson)
XXHASH_CFLAGS  ?= $(call pkg_cflags,$(call first_pkg,libxxhash))
XXHASH_LIBS    ?= $(or $(call pkg_libs,$(call first_pkg,libxxhash)),-lxxhash)
CMOCKA_CFLAGS  ?= $(call pkg_cflags,$(call first_pkg,cmocka))
CMOCKA_LIBS    ?= $(or $(call pkg_libs,$(call first_pkg,cmocka)),-lcmocka)

# what checks this project's own code (make check, asan, ubsan) adds -Werror: a newer compiler warns of more
WERROR ?=
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
        -Wmissing-prototypes -Wold-style-definition -Wvla -Wundef -Wcast-qual -Wwrite-strings \
        -Wformat=2 -Wimplicit-fallthrough -Wdouble-promotion $(WERROR)
# root installs from a clone that another owns
GIT_REVISION := $(shell env -u GIT_DIR -u GIT_WORK_TREE git -C $(SRC) -c safe.directory='*' describe --always --dirty --abbrev=12 2>/dev/null)
COMPILE = $(CC) -D_GNU_SOURCE -I$(SRC)/include $(HDF5_CFLAGS) $(BLAS_CFLAGS) $(LAPACKE_CFLAGS) $(JANSSON_CFLAGS) \
          $(XXHASH_CFLAGS) $(CPPFLAGS) $(WARN) $(OPT) $(ARCH) $(CFLAGS) -std=c11 -fopenmp $(EXTRA)
LINK    = $(CC) $(OPT) $(CFLAGS) -fopenmp $(EXTRA) $(LDFLAGS)
BG_LIBS := $(HDF5_LIBS) $(LAPACKE_LIBS) $(BLAS_LIBS) $(SCALAPACK_LIBS) $(JANSSON_LIBS) $(XXHASH_LIBS) $(LDLIBS) -lm

# vectorised arithmetic without errno and traps; no other liberty is taken
KERNEL_FLAGS := -O3 -fno-math-errno -fno-trapping-math

rel       = $(patsubst $(SRC)/%,%,$(1))
LIB_OBJ  := $(patsubst %.c,$(B)/obj/%.o,$(call rel,$(wildcard $(SRC)/common/*/*.c)))
STAGES   := $(notdir $(patsubst %/,%,$(wildcard $(SRC)/stages/*/)))
# plan asks all stages what they cost
stage_obj = $(patsubst %.c,$(B)/obj/%.o,$(call rel,$(wildcard $(SRC)/stages/$(1)/*.c $(if $(filter plan,$(1)),$(SRC)/stages/*/costs.c))))
PROGRAMS := $(addprefix $(B)/bin/,$(STAGES))
# the stages without their main(), for tests that link them
STAGE_LIB_OBJ := $(filter-out %/main.o,$(foreach s,$(STAGES),$(call stage_obj,$(s))))
TESTS    := $(patsubst %.c,$(B)/%,$(call rel,$(wildcard $(SRC)/tests/*/*_test.c $(SRC)/tests/*/*_mpitest.c $(SRC)/tests/*/*_drill.c)))
FUZZERS  := $(patsubst %.c,$(B)/%,$(call rel,$(wildcard $(SRC)/tests/fuzz/*_fuzz.c)))
HEADERS  := $(wildcard $(SRC)/include/bregman/*.h)

all: $(PROGRAMS) $(B)/lib/libbregman.a $(B)/share/schema.json $(B)/share/formats.md
# fuzz targets are linked with clang alone; that they compile is seen with every compiler
tests: $(TESTS) $(FUZZERS:$(B)/%=$(B)/obj/%.o)

$(B)/lib/libbregman.a: $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	@$(AR) rcs $@ $^

# the table of common/store/schema.c, for Python and for people
$(B)/share/schema.json: TABLE = json
$(B)/share/formats.md: TABLE = page
$(B)/share/%: $(B)/obj/scripts/schema
	@mkdir -p $(@D)
	@$< $(TABLE) > $@.new && mv $@.new $@
$(B)/obj/scripts/schema: $(B)/obj/scripts/schema.o $(B)/obj/common/store/schema.o
	@$(LINK) -o $@ $^ $(JANSSON_LIBS) $(LDLIBS)

define stage_rule
$(B)/bin/$(1): $(call stage_obj,$(1)) $(B)/lib/libbregman.a
	@mkdir -p $$(@D)
	@echo "  link  $(1)"
	@$(LINK) -o $$@ $$^ $(BG_LIBS)
endef
$(foreach s,$(STAGES),$(eval $(call stage_rule,$(s))))

$(B)/tests/%: $(B)/obj/tests/%.o $(STAGE_LIB_OBJ) $(B)/lib/libbregman.a
	@mkdir -p $(@D)
	@$(LINK) -o $@ $^ $(CMOCKA_LIBS) $(BG_LIBS) -ldl

$(B)/obj/tests/%.o: EXTRA_FLAGS = -I$(SRC)/stages -I$(SRC)/tests $(CMOCKA_CFLAGS)
$(B)/obj/common/model/kernels%.o: EXTRA_FLAGS = $(KERNEL_FLAGS)
$(B)/obj/common/linalg/eigen_grid.o: EXTRA_FLAGS = $(SCALAPACK_CFLAGS)
$(B)/obj/common/base/version.o: EXTRA_FLAGS = -DBG_GIT_REVISION='"$(GIT_REVISION)"' -DBG_VERSION='"$(VERSION)"'
$(B)/obj/common/base/version.o: $(B)/revision.txt
$(B)/obj/%.o: $(SRC)/%.c | $(B)/found.txt
	@mkdir -p $(@D)
	@echo "  cc    $*.c"
	@$(COMPILE) $(EXTRA_FLAGS) -MMD -MP -c -o $@ $<

$(B)/revision.txt: always
	@mkdir -p $(@D)
	@echo '$(VERSION) $(GIT_REVISION)' | cmp -s - $@ || echo '$(VERSION) $(GIT_REVISION)' > $@

# What this build uses, printed once and whenever it changes.
define FOUND
compiler  $(CC): $(shell $(CC) --version 2>/dev/null | head -n 1)
hdf5      $(or $(HDF5_PKG),by default) $(if $(HDF5_PKG),$(shell $(PKG_CONFIG) --modversion $(HDF5_PKG))): $(HDF5_LIBS)
blas      $(or $(BLAS_PKG),by default) $(if $(BLAS_PKG),$(shell $(PKG_CONFIG) --modversion $(BLAS_PKG))): $(BLAS_LIBS)
lapacke   $(or $(LAPACKE_PKG),by default): $(LAPACKE_LIBS)
scalapack $(if $(strip $(SCALAPACK_LIBS)),$(or $(SCALAPACK_PKG),as given) $(if $(SCALAPACK_PKG),$(shell $(PKG_CONFIG) --modversion $(SCALAPACK_PKG))): $(SCALAPACK_LIBS),none: an eigendecomposition runs on one rank)
flags     $(strip $(OPT) $(ARCH) $(CPPFLAGS) $(CFLAGS) $(EXTRA) $(LDFLAGS) $(LDLIBS))
endef
export FOUND
$(B)/found.txt: always
	@mkdir -p $(@D)
	@printf '%s\n' "$$FOUND" > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else $(say_missing); mv $@.new $@; cat $@; fi

# Stop before the first file fails to compile; MKL's headers have names of their own.
say_missing = missing=; \
	if command -v $(firstword $(CC)) > /dev/null; then \
	  for h in mpi.h hdf5.h hdf5_hl.h cblas.h lapacke.h jansson.h xxhash.h; do \
	    printf '\#if !__has_include(<mkl_%s>)\n\#include <%s>\n\#endif\n' $$h $$h | \
	      $(COMPILE) -x c -fsyntax-only - 2> /dev/null || missing="$$missing $$h"; done; \
	else missing=' $(firstword $(CC))'; fi; \
	if [ -n "$$missing" ]; then rm $@.new; \
	  echo "make: not found:$$missing" >&2; \
	  echo "make: on Debian scripts/setup.sh installs what is missing; elsewhere see Building in README.md" >&2; exit 1; fi

check: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all tests WERROR=-Werror
	@$(SRC)/tests/run.py $(B)

# What takes minutes each: drills of failing ranks, full disks, limits of memory, large eigendecompositions, plan against runs,
# stops inside a unit, training and validation in sweeps, variants of the method against references of their own.
check-long: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all tests WERROR=-Werror
	@KIND=long $(SRC)/tests/run.py $(B)

# The suite under the sanitizers: same tests, own build folder.
asan: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all tests B=$(B)/asan WERROR=-Werror OPT='-O1 -g' EXTRA='-fsanitize=address -fno-omit-frame-pointer'
	@export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:verify_asan_link_order=0; \
	   $(SRC)/tests/run.py $(B)/asan && KIND=long $(SRC)/tests/run.py $(B)/asan
ubsan: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all tests B=$(B)/ubsan WERROR=-Werror OPT='-O1 -g' EXTRA='-fsanitize=undefined -fno-sanitize-recover=all'
	@$(SRC)/tests/run.py $(B)/ubsan && KIND=long $(SRC)/tests/run.py $(B)/ubsan

# The jobs under a real Slurm of four nodes on this machine; skipped where its packages are missing.
check-slurm: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all
	@$(SRC)/tests/slurm/run.sh $(B) || [ $$? = 77 ]

# All drills of one failing rank, as a table (an hour), and KILLS kills of whole runs (a second or two each).
KILLS ?= 1000
drills check-kill: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all tests
	@BUILD=$(abspath $(B)) OMP_NUM_THREADS=1 DRILLS=$(or $(DRILLS),all) KILLS=$(KILLS) \
	   $(BREGMAN_VENV)/bin/python $(SRC)/tests/python/$(if $(filter drills,$@),drills_long,kill_test).py

# ---- fuzzing: the targets of tests/fuzz for FUZZ_SECONDS each, with clang's libFuzzer and sanitizers ----
FUZZ_SECONDS ?= 30
fuzzers: $(FUZZERS)
$(FUZZERS): LDFLAGS += -fsanitize=fuzzer
# the stages' own mains, whose command lines end in the target
$(B)/tests/fuzz/command_line_fuzz: $(STAGES:%=$(B)/obj/tests/fuzz/main_of_%.o)
$(B)/obj/tests/fuzz/main_of_%.o: $(B)/obj/stages/%/main.o
	@mkdir -p $(@D)
	@objcopy --redefine-sym main=$*_main --redefine-sym bg_stage_main=fuzz_stage_main $< $@
fuzz: setup
	@$(SRC)/tests/fuzz/run.sh $(B)/fuzz $(FUZZ_SECONDS)

# The layout of all code, applied, or with FORMAT=check compared.
format: setup
	@cd $(SRC) && $(BREGMAN_VENV)/bin/clang-format $(if $(FORMAT),--dry-run -Werror,-i) \
	   common/*/*.[ch] stages/*/*.[ch] include/bregman/*.h scripts/*.c tests/*/*.[ch]
	@cd $(SRC) && $(BREGMAN_VENV)/bin/ruff format -q --no-cache $(if $(FORMAT),--diff) . && \
	   $(BREGMAN_VENV)/bin/ruff check -q --no-cache $(if $(FORMAT),,--fix) .

demo: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all
	@$(SRC)/scripts/demo/run $(B)
# hundreds of small trainings: one to two hours on two cores
validate: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all
	@BREGMAN_BIN=$(abspath $(B))/bin $(SRC)/scripts/demo/validation.py $(B)/validate
# models of several sizes, and what moves each: hours on two cores; STUDY=quick: ten minutes; STUDY=local: retraining
STUDY ?= full
STUDIED = $(B)/study$(patsubst %,-%,$(filter-out full,$(STUDY)))
study: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all
	@$(SRC)/scripts/demo/study.py $(STUDIED) --size $(STUDY)
	@BREGMAN_BIN=$(abspath $(B))/bin $(SRC)/jobs/sweep $(STUDIED)/study.toml --local
	@for x in parameters tokens; do $(SRC)/scripts/training_figure $(STUDIED)/runs/*/model --against $$x --output $(STUDIED)/$$x.svg; done
bench: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all
	@$(SRC)/scripts/bench/run.py --build $(B)
	@$(SRC)/scripts/bench/training.py --build $(B)
# with a Python that has torch, transformers and h5py
TORCH_PYTHON ?= python3
check-torch: all
	@$(TORCH_PYTHON) $(SRC)/tests/python/transformers_check.py $(B)
large-case: setup
	@$(MAKE) --no-print-directory -f $(SRC)/Makefile all
	@$(SRC)/scripts/bench/large_case.py --build $(B) --folder $(B)/large
setup:
	@$(SRC)/scripts/setup.sh

SCRIPTS := train_tokenizer tokenize_corpus tokenize_queries gguf_to_hf bin_to_hf report export training_figure validate mpi
# the programs' package
PACKAGE := $(patsubst $(SRC)/scripts/%,%,$(foreach f,*.py */*.py */*.j2,$(wildcard $(SRC)/scripts/bregman/$(f))))
DEST = $(DESTDIR)$(PREFIX)
OWN  = $(DEST)/libexec/bregman
# libexec/bregman is laid out as the source tree: jobs, scripts and programs find each other, and the environment of the
# build, unless setup.sh has made one there.  Scripts are links in bin: they say the name that they were called by.
install: prefix all
	@mkdir -p $(DEST)/bin $(DEST)/lib/pkgconfig $(DEST)/include/bregman $(OWN)/scripts $(OWN)/jobs $(OWN)/build/bin $(OWN)/build/share
	@for p in $(STAGES); do name=bregman-$$(echo $$p | tr _ -); \
	   install $(B)/bin/$$p $(DEST)/bin/$$name; ln -sf ../../../../bin/$$name $(OWN)/build/bin/$$p; done
	@for s in $(SCRIPTS); do \
	   install $(SRC)/scripts/$$s $(OWN)/scripts/; \
	   ln -sf ../libexec/bregman/scripts/$$s $(DEST)/bin/bregman-$$(echo $$s | tr _ -); done
	@install -d $(OWN)/scripts/peers && install $(SRC)/scripts/peers/*_scores $(OWN)/scripts/peers/
	@install -m 644 $(SRC)/scripts/peers/*.py $(OWN)/scripts/peers/
	@install $(SRC)/scripts/setup.sh $(SRC)/scripts/sweep $(OWN)/scripts/
	@install -m 644 $(SRC)/scripts/requirements.txt $(OWN)/scripts/
	@for f in $(PACKAGE); do install -D -m 644 $(SRC)/scripts/$$f $(OWN)/scripts/$$f || exit 1; done
	@install $(SRC)/jobs/sweep $(OWN)/jobs/
	@ln -sf ../libexec/bregman/jobs/sweep $(DEST)/bin/bregman-sweep
	@install -m 644 $(wildcard $(SRC)/jobs/*.sbatch) $(SRC)/jobs/stage.sh $(wildcard $(SRC)/jobs/*.toml) $(OWN)/jobs/
	@install -m 644 $(B)/revision.txt $(OWN)/VERSION
	@install -m 644 $(B)/share/schema.json $(OWN)/build/share/
	@install -D -m 644 $(B)/share/formats.md $(DEST)/share/doc/bregman/formats.md
	@install -m 644 $(B)/lib/libbregman.a $(DEST)/lib/
	@install -m 644 $(HEADERS) $(DEST)/include/bregman/
	@printf 'prefix=%s\nName: bregman\nDescription: EK-FAC influence functions over MPI\nVersion: %s\nCflags: -I$${prefix}/include %s\nLibs: -L$${prefix}/lib -lbregman %s -fopenmp\n' \
	   '$(PREFIX)' '$(VERSION)' '$(HDF5_CFLAGS)' '$(BG_LIBS)' > $(DEST)/lib/pkgconfig/bregman.pc
	@echo "installed in $(DEST)"
	@if [ -z '$(DESTDIR)' ]; then \
	   case ":$$PATH:" in *:$(PREFIX)/bin:*) ;; *) echo 'to call the programs by name: export PATH=$(PREFIX)/bin:$$PATH' ;; esac; \
	   if [ -d $(OWN)/build/venv ] && [ ! -L $(OWN)/build/venv ]; then :; \
	   elif [ -x $(BREGMAN_VENV)/bin/python ]; then ln -sfn $(abspath $(BREGMAN_VENV)) $(OWN)/build/venv; \
	   else echo 'the Python programs need an environment: run $(OWN)/scripts/setup.sh --python'; fi; fi

prefix:
	@case '$(PREFIX)' in *[[:space:]]*|[!/]*|'') echo 'make: PREFIX=$(PREFIX) is not an absolute path without spaces' >&2; exit 1 ;; esac
	@[ -n '$(DESTDIR)' ] || case "$$(realpath -m $(PREFIX))/" in \
	 "$$(realpath -m $(B))"/?*) ;; \
	 "$$(realpath -m $(B))"/|"$$(realpath $(SRC))"/*) \
	   echo 'make: PREFIX=$(PREFIX) is in the source tree or the build, whose files would mix with the installed ones:' \
	     'take another, such as $$HOME/.local' >&2; exit 1 ;; \
	 esac

clean:
	rm -rf $(B)/obj $(B)/bin $(B)/lib $(B)/share $(B)/tests $(B)/asan $(B)/ubsan $(B)/fuzz $(B)/found.txt $(B)/revision.txt
help:
	@echo 'all (default)  the stages in B/bin, B/lib/libbregman.a, the table of the files in B/share      B=$(B)'
	@echo 'check          set up, build, run the test suite (minutes)'
	@echo 'check-long     tests that take minutes each'
	@echo 'check-slurm    the jobs and a sweep under a real Slurm on this machine (minutes)'
	@echo 'drills         one rank fails, in every phase, place and moment: a table of how jobs end (about an hour)'
	@echo 'check-kill     whole runs killed with -9 KILLS=$(KILLS) times, on other ranks each time'
	@echo 'check-torch    what train_models leaves, opened by transformers (TORCH_PYTHON: a Python that has it)'
	@echo 'asan, ubsan    the suite under the address / undefined-behaviour sanitizer'
	@echo 'fuzz           the fuzz targets of tests/fuzz, FUZZ_SECONDS=$(FUZZ_SECONDS) each (needs clang)'
	@echo 'format         lay out all code as .clang-format and .ruff.toml say; FORMAT=check: only compare'
	@echo 'demo           the main job on SmolLM2-135M and real text; DEMO=full takes more of it'
	@echo 'validate       influence scores against training again, with a small model (one to two hours on two cores)'
	@echo 'study          what moves models of four sizes (hours on two cores); STUDY=quick: two tiny ones (ten minutes), local: retraining'
	@echo 'bench          speed and memory, beside the SGEMM rate of this machine (and Kronfluence and PyTorch if importable)'
	@echo 'large-case     a model with layers 28672 wide on four ranks; 45 GB of disk'
	@echo 'install        PREFIX=$(PREFIX)'
	@echo 'setup, tests, clean, help'

.PHONY: all tests check check-long check-slurm check-kill check-torch drills large-case asan ubsan fuzzers fuzz format demo validate study bench setup install prefix clean help always
.SECONDARY:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
