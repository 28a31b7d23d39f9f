"""Workers as jobs of Slurm, or as processes of this machine, by submitit."""

import subprocess

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.loop.executor import Ended, worker_command


class Jobs:
    """Runs at most `count` workers at once. `options` are submitit's, besides `cluster`."""

    def __init__(self, cluster=None, count=1, **options):
        import submitit

        self.executor = submitit.AutoExecutor(cache_folder() / "submitit", cluster=cluster)
        self.executor.update_parameters(**options)
        self.count, self.waiting, self.running = count, [], []

    def submit(self, spec):
        job = Job(self, worker_command(spec))
        self.waiting.append(job)
        return job

    def see(self):
        """Start what waits, as far as there is room."""
        self.running = [job for job in self.running if not job.handle.done()]
        while self.waiting and len(self.running) < self.count:
            job = self.waiting.pop(0)
            job.handle = self.executor.submit(subprocess.run, job.command, check=False)
            self.running.append(job)

    def close(self):
        for job in [*self.waiting, *self.running]:
            job.cancel()


class Job:
    def __init__(self, jobs, command):
        self.jobs, self.command, self.handle = jobs, command, None

    def ended(self):
        """Called several times a second; None until the job has ended."""
        self.jobs.see()
        if self.handle is None or not self.handle.done():
            return None
        if error := self.handle.exception():
            return Ended(f"ended: {error}", again=True)
        code = self.handle.result().returncode  # 2 is an error of the user's, which is written
        return Ended() if code in (0, 2) else Ended(f"ended with exit code {code}", again=True)

    def cancel(self):
        if self in self.jobs.waiting:
            self.jobs.waiting.remove(self)
        elif self.handle and not self.handle.done():
            self.handle.cancel(check=False)
            self.handle.wait()


def pytest_ftloop_executor(name, options, count):
    """The engine `submitit` of the loop files in this folder and below."""
    return Jobs(count=count, **options) if name == "submitit" else None
