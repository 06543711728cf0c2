from facesyn.cli import app

app(prog_name="facesyn")
