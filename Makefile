# Python 3.11 and make are all that must be there; every target makes what it needs.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
# A profile is a folder of nbs/runs/params: the runs it has parameters for are run, in this order. METHOD=id3 (the default) or cemiface; TRAIN=1 starts from nothing instead of from data/models.
METHOD  ?= id3
PROFILE ?= $(if $(TRAIN),train,$(if $(filter id3,$(METHOD)),demo,$(METHOD)))
RUNS     = encoders base prepare encode id3_train id3_generate cemiface_train inquiries cemiface_generate idbooth_train idbooth_generate idbooth_report idbooth_augment recognise id3_report id3_compare id3_experiment photo_probe cemiface_report cemiface_experiment ranked_groups

bin    = .venv/bin
export PATH := $(CURDIR)/$(bin):$(PATH)
wanted = $(foreach run,$(RUNS),$(if $(wildcard nbs/runs/params/$(PROFILE)/$(run).yaml),$(run)))

.PHONY: setup demo lab test check notebooks readme docs hooks
setup: .venv/.ready
.venv/.ready: pyproject.toml constraints.txt
	test -x $(bin)/python || $(PYTHON) -m venv .venv
	$(bin)/pip install -q -c constraints.txt $$(grep '^torch==' constraints.txt)
	$(bin)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	@test -n "$(wanted)" || { echo "no runs for profile $(PROFILE): expected a folder of nbs/runs/params"; exit 1; }
	mkdir -p data/runs/$(PROFILE)
	for run in $(wanted); do echo "== $$run"; \
	  papermill --cwd . -k python3 --log-output --no-progress-bar -f nbs/runs/params/$(PROFILE)/$$run.yaml nbs/runs/$$run.ipynb data/runs/$(PROFILE)/$$run.ipynb || exit 1; done

lab: setup hooks
	$(bin)/jupyter lab nbs

# Notebooks clean, export in sync, no orphans, known parameters; then lint.
notebooks: setup
	$(bin)/pytest -q -x tests/test_notebooks.py
	$(bin)/ruff check facesyn nbs tests bench
	$(bin)/ruff format --check nbs tests bench

check: notebooks
	$(bin)/pytest -q -x tests/test_runs.py

test: notebooks
	OMP_NUM_THREADS=1 nbdev_test --n_workers 2 --timing
	$(bin)/pytest -q --ignore=tests/test_notebooks.py

# Links lead on from nbs/ in the notebook, from the root in the README.
readme: setup
	jupyter nbconvert --to markdown --stdout nbs/index.ipynb 2>/dev/null | sed -E 's%\]\(([^:)#]+\))%](nbs/\1%g; s%\]\(nbs/\.\./%](%g' > README.md

docs: setup
	IN_TEST=1 PLOTLY_RENDERER=notebook jupyter nbconvert --to html --execute --output-dir data/docs nbs/*.ipynb

# Notebooks are cleaned on saving and merged cell by cell; only for a git checkout in which they are edited.
hooks: setup
	if [ -d .git ] && [ -z "$$CI" ]; then nbdev_install_hooks && git config --local merge.nbdev-merge.driver '$(bin)/nbdev_merge %O %A %B %P'; fi
