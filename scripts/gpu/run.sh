#!/usr/bin/env bash
# Everything that is worth a GPU's time, in one call of at most nine minutes, from a bare machine.
#
#     OUT=results bash scripts/gpu/run.sh [tests] [sinkhorn] [bench] [claims]    # default: all
#     OUT=results bash scripts/gpu/run.sh zoo                     # cells and entries of the zoo
#
# Needs a python3 with torch, torchvision, lightning, timm, torchmetrics, einops, scikit-learn, scipy,
# matplotlib, rich, safetensors, filelock and pytest-xdist. What else is missing (hydra-core, omegaconf,
# antlr4-python3-runtime) is installed from wheels in .whl/, if that folder is there. Each part has a
# limit of its own, so that one that hangs does not cost the rest; LIMIT_<PART> changes it, in seconds.
# Logs and numbers go to $OUT/logs.tar, cells and entries to at most four files of 15 MB beside it, a
# short table to the screen. GPU_DRY_RUN=1 runs every line on a CPU, with tiny sizes. MPS=1 lets the claims' processes share the card through NVIDIA's
# multi-process service, if it starts: kernels of several then run side by side, where otherwise they
# take turns.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-gpu-results}
mkdir -p "$OUT"
DRY=${GPU_DRY_RUN:-0}
PYTHON=${PYTHON:-python3}
PARTS=${*:-tests sinkhorn bench claims}
JOBS=${JOBS:-$([ "$DRY" = 1 ] && echo 2 || echo 14)}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 HYDRA_FULL_ERROR=1
export LTPLUGINS_HOST=builtin

if compgen -G '.whl/*.whl' > /dev/null; then
  SITE=$(mktemp -d)
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" .whl/*.whl || exit 1
  export PYTHONPATH=$PYTHONPATH:$SITE
fi

# part NAME SECONDS COMMAND...: run it under a limit, its output in a file, a line for the table.
part() {
  local name=$1 limit=$2 begin=$SECONDS rc
  local own="LIMIT_${name^^}"
  limit=${!own:-$limit}
  shift 2
  timeout --signal=TERM --kill-after=10 "$limit" "$@" > "$OUT/$name.log" 2>&1
  rc=$?
  TABLE+="$name: exit code $rc after $((SECONDS - begin)) s of $limit"$'\n'
  echo "== $name, exit code $rc, $((SECONDS - begin)) s"
  tail -n "${TAIL:-12}" "$OUT/$name.log"
  # Into one file: a lent machine gives back eight, and this call may be ended at any moment.
  for file in "$name.log" tests.xml bench.json; do
    [ -e "$OUT/$file" ] && tar --append -f "$OUT/logs.tar" -C "$OUT" "$file" && rm "$OUT/$file"
  done
}
TABLE=''

# share on|off: one server for the processes on the card; without it they work all the same.
share() {
  export CUDA_MPS_PIPE_DIRECTORY=/tmp/ltplugins-mps CUDA_MPS_LOG_DIRECTORY=/tmp/ltplugins-mps
  if [ "$1" = off ]; then
    echo quit | timeout 20 nvidia-cuda-mps-control > /dev/null 2>&1
  else
    mkdir -p "$CUDA_MPS_PIPE_DIRECTORY"
    if timeout 20 nvidia-cuda-mps-control -d && timeout 60 "$PYTHON" -c 'import torch; torch.ones(1).cuda()'; then
      echo "the processes share the card through MPS"
      return
    fi
    echo "MPS does not start here: the processes take turns"
    echo quit | timeout 20 nvidia-cuda-mps-control > /dev/null 2>&1
  fi
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

# cells claims|zoo WORDS: train cells until the limit, and bring back what there is.
cells() {
  local name=$1 own="LIMIT_${1^^}" limit
  limit=${!own:-$([ "$DRY" = 1 ] && echo 60 || echo 150)}
  [ "${MPS:-0}" = 1 ] && share on
  # The runner ends by itself before the limit, so that cells are saved and packed.
  export "$own=$((limit + 45))"
  # shellcheck disable=SC2086
  part "$name" 0 "$PYTHON" "scripts/$name.py" --jobs "$JOBS" \
    --accelerator "$([ "$DRY" = 1 ] && echo cpu || echo cuda)" --limit "$limit" \
    --collect "$OUT/$name.tar" $2
  [ -n "${CUDA_MPS_PIPE_DIRECTORY:-}" ] && share off
}

for wanted in $PARTS; do
  case $wanted in
    tests)
      mapfile -t FILES < <(grep -rl on_a_gpu tests --include='test_*.py' | sort)
      PICK=${PICK:-$([ "$DRY" = 1 ] && echo '(simclr and 32-true) or stages' || echo '')}
      TAIL=40 part tests 150 "$PYTHON" -m pytest -m gpu -n "$JOBS" --dist load -p no:cacheprovider \
        -k "$PICK" --tb=short -W ignore --junitxml "$OUT/tests.xml" "${FILES[@]}"
      ;;
    sinkhorn)
      part sinkhorn 60 "$PYTHON" scripts/gpu/sinkhorn.py
      ;;
    bench)
      QUICK=$([ "$DRY" = 1 ] && echo --quick)
      # shellcheck disable=SC2086
      TAIL=80 part bench 150 "$PYTHON" scripts/gpu/bench.py $QUICK --json "$OUT/bench.json" ${BENCH:-}
      ;;
    claims)
      cells claims "${CLAIMS:-}"
      ;;
    zoo)
      cells zoo "${ZOO:-}"
      ;;
    *) echo "unknown part '$wanted': expected tests, sinkhorn, bench, claims or zoo." >&2; exit 2 ;;
  esac
done
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
echo "$TABLE" | tee "$OUT/table.txt"
