#!/bin/bash
#SBATCH --job-name="first try; rm -rf $HOME 'x' \"q\" \\ # % é"
#SBATCH --output="/data/runs/50%% more/job/log.txt"
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:a100:4
#SBATCH --mem=123392M
#SBATCH --time=240
#SBATCH --partition=gpu
#SBATCH --account=vision
#SBATCH --qos=long
#SBATCH --constraint="a100&ib"
#SBATCH --reservation="week 7"
#SBATCH --exclude=n[3-4],n9
#SBATCH --nice=10
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --export=HOME,PATH,USER,LOGNAME,SHELL,LANG,LC_ALL,TZ,LD_LIBRARY_PATH,VIRTUAL_ENV,CASTBANK_HOME,CUDA_HOME,HF_HOME,XDG_CACHE_HOME,MY_TOKEN
#SBATCH --exclusive

# castbank job first-3f2a
set -u
asked= supervisor=
trap 'asked=x$asked; [ -z "$supervisor" ] || kill -TERM "$supervisor" 2>/dev/null' TERM USR1
export NCCL_SOCKET_IFNAME=ib0
export NOTE='it'"'"'s $HOME
and `id`'
export PYTHONPATH='/data/runs/50% more/job/code'
export PYTHONSAFEPATH=1
export PYTHONUNBUFFERED=1
cd /home/ada || exit 2
/opt/venv/bin/python -P -m cluster.supervisor '/data/runs/50% more' &
supervisor=$!
[ -z "$asked" ] || kill -TERM "$supervisor" 2>/dev/null
code=
while :; do  # a signal cuts wait short; a second wait for the same end says 127
    before=$asked
    wait "$supervisor"; now=$?
    if [ "$now" != 127 ] || [ -z "$code" ]; then code=$now; fi
    [ "$asked" != "$before" ] || break
done
[ -z "$asked" ] || [ "$code" != 143 ] || code=75  # it had not yet begun to listen
if [ "$code" = 75 ] && [ ! -e '/data/runs/50% more/job/cancelled' ]; then
    read -r restarts <<< "$(squeue --noheader --jobs="$SLURM_JOB_ID" --Format=RestartCnt)"
    if [ "$restarts" = "${SLURM_RESTART_COUNT:-0}" ]; then  # else it runs elsewhere already: this node was lost
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$code"
