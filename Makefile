# The front door: make demo, make check. Everything else is CMake and Ninja (CMakePresets.json).
SHELL := /bin/bash
.PHONY: build program demo check long packages asan tsan valgrind fuzz bench install format clean help

help:
	@echo "make demo      install what is missing, build, and let the digits decide (a minute)"
	@echo "make check     install what is missing, build, and run the tests"
	@echo "make build     the release program: build/ballast"
	@echo "make long      the tests that take their time"
	@echo "make asan tsan valgrind fuzz   the tests under each"
	@echo "make install   to \$$PREFIX (/usr/local)"

packages:
	@./packages.sh

build: packages
	@cmake --preset release $(CMAKE_ARGUMENTS) > build.log 2>&1 || { cat build.log; rm -f build.log; exit 1; }; rm -f build.log
	@cmake --build build

program: packages
	@cmake --preset release $(CMAKE_ARGUMENTS) > build.log 2>&1 || { cat build.log; rm -f build.log; exit 1; }; rm -f build.log
	@cmake --build build --target ballast_program

# Forty percent of the labels of 1797 scanned digits are wrong. Which method helps?
demo: program
	build/ballast compare digits --label-noise 0.4 --arm baseline --arm elr --arm "mixup(alpha=0.2)" \
	    --arm label_smoothing --arm null

check: build
	ctest --test-dir build --output-on-failure -LE long -j2

long: build
	ctest --test-dir build --output-on-failure -j2

asan tsan: packages
	cmake --preset $@ > /dev/null
	cmake --build build-$@
	ctest --test-dir build-$@ --output-on-failure -LE "long|slow" -j2

# Every unit test but those that time or sweep for long; a leak or bad access is a failure. On the
# release build: -Og takes three times as long, and asan and tsan run it. The store's tests kill
# what they fork and start what is not there, of which valgrind makes something else.
VALGRIND := valgrind -q --error-exitcode=9 --leak-check=full --child-silent-after-fork=yes
VALGRIND_LEFT_OUT := $(addprefix build/test_,cpu loops primitives stats calibrate store long_%)
valgrind: build
	@for test in $(filter-out $(VALGRIND_LEFT_OUT),$(filter-out %.d,$(wildcard build/test_*))); do \
	    echo "valgrind $$test"; \
	    BL_PATIENCE=50 $(VALGRIND) $$test > valgrind.log 2>&1 || { cat valgrind.log; exit 1; }; \
	done; rm -f valgrind.log

fuzz: packages
	./tests/fuzz/run.sh

bench: build
	cmake --build build --target bench
	build/bench_steps

install: build
	cmake --install build $(if $(PREFIX),--prefix $(PREFIX))

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf build build-asan build-tsan build-debug build-fuzz
