#!/bin/bash
#SBATCH --job-name=first
#SBATCH --output=/data/runs/first/job/logs/part-%a.log
#SBATCH --open-mode=append
#SBATCH --array=1-8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --signal=B:USR1@120
#SBATCH --no-requeue
#SBATCH --export=HOME,PATH,USER,LOGNAME,SHELL,LANG,LC_ALL,TZ,LD_LIBRARY_PATH,VIRTUAL_ENV,CASTBANK_HOME,CUDA_HOME,HF_HOME,XDG_CACHE_HOME

# castbank job first-3f2a
set -u
asked= supervisor=
trap 'asked=x$asked; [ -z "$supervisor" ] || kill -TERM "$supervisor" 2>/dev/null' TERM USR1
export PYTHONUNBUFFERED=1
cd /home/ada || exit 2
/opt/venv/bin/python -P -m cluster.array_part /data/runs/first "$SLURM_ARRAY_TASK_ID" &
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
exit "$code"
